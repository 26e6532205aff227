import { MeshError, toProblem } from '../mesh/errors.ts';
import { gatewaySettings } from '../mesh/settings.ts';
import { decide } from './access.ts';
import { createGateway, type Gateway, learn } from './gateway.ts';
import {
  type AnswerDecision,
  addHeaders,
  DECISION_KEY,
  type Decision,
  REQUEST_KEY,
  readRequest,
} from './handoff.ts';
import { readOutcome } from './log.ts';
import type { Kong } from './pdk.ts';

export const Name = 'mcp-mesh';
export const Version = '0.1.0';
/** After Kong's own CORS and authentication plugins, before post-function. */
export const Priority = 900;
/** Settings come by environment (mesh/settings.ts): one plugin server serves one mesh. */
export const Schema: object[] = [];

/** Of the process, not of an instance: Kong makes an instance for each nginx worker and each change of its config. */
let gateway: Gateway | undefined;

/**
 * Kong's plugin: access decides, log learns. An exception would let the request PASS (Kong fails open), so every way
 * out of access leaves a decision; without one, post-function answers 503.
 */
export class Plugin {
  constructor() {
    gateway ??= createGateway(gatewaySettings());
  }

  async access(kong: Kong): Promise<void> {
    const request = readRequest(await kong.ctx.shared.get(REQUEST_KEY));
    // Kong's authentication ran after pre-function took its snapshot: one more round trip, only where it is used.
    if (request && gateway?.kongConsumers) addHeaders(request, await kong.request.getHeaders());
    const decision: Decision = request && gateway ? await decide(request, gateway) : missingHandoff();
    await kong.ctx.shared.set(DECISION_KEY, decision);
  }

  async log(kong: Kong): Promise<void> {
    const outcome = readOutcome(await kong.log.serialize());
    if (outcome && gateway) learn(outcome, gateway);
  }
}

/** Sends and writes what waits: spans, audit entries. The plugin server calls it at its end. Never rejects. */
export async function close(): Promise<void> {
  await Promise.all([gateway?.tracing?.close(), gateway?.audit?.close()]);
}

function missingHandoff(): AnswerDecision {
  const error = new MeshError('internal', { detail: 'the route lacks the pre-function of kong.yml' });
  const headers = { 'content-type': 'application/problem+json' };
  return { status: error.status, headers, body: JSON.stringify(toProblem(error)) };
}

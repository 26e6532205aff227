import { createConsul } from '../mesh/consul.ts';
import { MeshError, toProblem } from '../mesh/errors.ts';
import { createHostGuard } from '../mesh/host-guard.ts';
import { gatewaySettings } from '../mesh/settings.ts';
import { decide } from './access.ts';
import { createBalancer } from './balancer/balancer.ts';
import { createDiscovery, type Discovery } from './discovery.ts';
import { Ejection } from './ejection.ts';
import { type AnswerDecision, DECISION_KEY, type Decision, REQUEST_KEY, readRequest } from './handoff.ts';
import { type Outcome, readOutcome } from './log.ts';
import { createGatewayMetrics } from './metrics.ts';
import type { Kong } from './pdk.ts';

export const Name = 'mcp-mesh';
export const Version = '0.1.0';
/** After Kong's own CORS and authentication plugins, before post-function. */
export const Priority = 900;
/** Settings come by environment (mesh/settings.ts): one plugin server serves one mesh. */
export const Schema: object[] = [];

type Gateway = ReturnType<typeof startGateway>;

const OWN_BREAKER = 'its own breaker is open: the MCP server failed too often in a row';

/** Of the process, not of an instance: Kong makes an instance for each nginx worker and each change of its config. */
let gateway: Gateway | undefined;

/**
 * Kong's plugin: access decides, log learns. An exception would let the request PASS (Kong fails open), so every way
 * out of access leaves a decision; without one, post-function answers 503.
 */
export class Plugin {
  constructor() {
    gateway ??= startGateway();
  }

  async access(kong: Kong): Promise<void> {
    const request = readRequest(await kong.ctx.shared.get(REQUEST_KEY));
    const decision: Decision = request && gateway ? await decide(request, gateway) : missingHandoff();
    await kong.ctx.shared.set(DECISION_KEY, decision);
  }

  async log(kong: Kong): Promise<void> {
    const outcome = readOutcome(await kong.log.serialize());
    if (outcome && gateway) learn(outcome, gateway);
  }
}

function startGateway() {
  const settings = gatewaySettings();
  let failing = false;
  const onError = (error: Error) => {
    if (!failing) warn(`Consul cannot be read, the last table stays in use: ${error.message}`);
    failing = true;
  };
  const balancer = createBalancer();
  const ejection = new Ejection({
    onChange: (instance, state, reason) => warn(`${instance}: breaker ${state}${reason && `: ${reason}`}`),
  });
  const onInstances = (ids: ReadonlySet<string>) => {
    balancer.retain(ids);
    ejection.retain(discovery.list().flatMap(({ instances }) => instances));
  };
  const discovery: Discovery = createDiscovery({
    consul: createConsul(settings.consul),
    onInstances,
    onError,
  });
  return {
    discovery,
    balancer,
    ejection,
    refuseHost: createHostGuard({
      hosts: settings.allowedHosts,
      origins: settings.allowedOrigins,
      localNames: true,
    }),
    metrics: createGatewayMetrics(settings.metricsPort),
  };
}

/** How a call went, for the choice of the next one. */
function learn(outcome: Outcome, { balancer, ejection, metrics }: Gateway): void {
  metrics.observe(outcome);
  const { callId, tries, report, answeredMs } = outcome;
  balancer.release(callId);
  for (const { instance, result, reason } of tries) {
    if (result === 'answered' && report?.breakerOpen) ejection.trip(callId, instance, OWN_BREAKER);
    else if (result !== 'unknown') ejection.learn(callId, instance, result === 'failed' ? reason : undefined);
  }
  ejection.release(callId);
  const answeredBy = tries.at(-1)?.instance;
  if (answeredBy === undefined || answeredMs === undefined) return;
  balancer.learn(answeredBy, { latencyMs: outcome.status >= 500 ? undefined : answeredMs, report });
}

/** Kong parses the plugin server's stdout. */
function warn(text: string): void {
  process.stderr.write(`mcp-mesh: ${text}\n`);
}

function missingHandoff(): AnswerDecision {
  const error = new MeshError('internal', { detail: 'the route lacks the pre-function of kong.yml' });
  const headers = { 'content-type': 'application/problem+json' };
  return { status: error.status, headers, body: JSON.stringify(toProblem(error)) };
}

import { isLogWanted, RPC } from '../../mesh/eras.ts';
import { objectText } from '../../mesh/json-text.ts';
import {
  changeRequest,
  isObject,
  progressTokenOf,
  type RpcNotification,
  type RpcRequest,
  readChildMessage,
  rewriteAt,
  textAt,
} from '../../mesh/jsonrpc.ts';
import { RpcError } from '../../mesh/rpc-error.ts';
import type { WireText } from '../../mesh/wire-text.ts';
import type { Caller } from '../caller.ts';
import { type CancelSignal, toAbortSignal } from '../canceller.ts';
import type { ServerInfo } from '../connection.ts';
import type { Gate, GateOptions } from '../gate.ts';
import type { Upstream } from '../relay.ts';
import type { McpReply } from '../reply.ts';
import type { Subscriptions } from '../subscriptions.ts';
import { type InputRequest, readInputRequired, toLegacyResponse, toModernRequest } from '../translate.ts';
import { type ClientSession, requiredCapability } from './client-session.ts';

export interface LegacyUpstream {
  upstream: Upstream;
  info: ServerInfo;
  /** The session's own server: whatever it says is for this session. */
  exclusive: boolean;
  subscriptions: Subscriptions;
  /** Whether another call on it gets logs already, which could not be told from ours. */
  busyLogging(): boolean;
}

/** Whose request it is, and where its answer goes. */
interface LegacyCall {
  session: ClientSession;
  caller: Caller;
  out: McpReply;
  /** The client cancelled it. */
  signal: CancelSignal;
}

/** A server may ask this often within one call. */
const ROUNDS_MAX = 20;

/** A legacy client's request on a server of either era; resolves with the response's text. @throws MeshError, RpcError */
export function callForLegacy(
  gate: Gate,
  target: LegacyUpstream,
  message: RpcRequest,
  call: LegacyCall,
): Promise<WireText> {
  const { session, caller, out, signal } = call;
  const token = progressTokenOf(message);
  const onNotification = (notification: RpcNotification) => {
    if (!isWanted(notification, session)) return;
    const text = restoreToken(notification, token);
    if (!out.send(text) && notification.method !== 'notifications/progress') session.tell(text);
  };
  if (target.info.era === 'modern') return callOnModern(gate, target, message, { ...call, onNotification });
  const options: GateOptions = { caller, signal, onNotification };
  if (target.exclusive) options.onRequest = (asked, withdrawn) => session.ask(asked, withdrawn, out.send);
  return gate.call(target.upstream, message, options);
}

/** In rounds, since a modern server asks its client by an answer. */
async function callOnModern(
  gate: Gate,
  target: LegacyUpstream,
  message: RpcRequest,
  { session, caller, out, signal, onNotification }: LegacyCall & Pick<GateOptions, 'onNotification'>,
): Promise<WireText> {
  const logLevel = target.busyLogging() ? undefined : session.logLevel;
  let request = toModernRequest(message, session.claims, logLevel);
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const answer = await gate.call(target.upstream, request, {
      caller,
      continued: round > 0,
      signal,
      onNotification,
      wantsLogs: logLevel !== undefined,
    });
    const text = answer.toString();
    const required = readInputRequired(text);
    if (!required) return toLegacyResponse(message.method, text);
    const inputResponses = await askAll(required.requests, session, out, signal);
    const { requestState } = required;
    const set = { inputResponses, ...(requestState === undefined ? {} : { requestState }) };
    request = changeRequest(request, ['params'], { set });
  }
  throw new RpcError(200, RPC.internal, `the server asked for input more than ${ROUNDS_MAX} times`);
}

/** A progress notification under the caller's own token; any other as it is. */
export function restoreToken(notification: RpcNotification, token: string | undefined): string {
  if (notification.method !== 'notifications/progress' || token === undefined) return notification.text;
  return rewriteAt(notification.text, ['params', 'progressToken'], token);
}

/**
 * What a modern server wants of the client, asked as a legacy server would, on the call's own stream; the answers as
 * JSON text by key.
 */
async function askAll(
  requests: Map<string, InputRequest>,
  session: ClientSession,
  out: McpReply,
  signal: CancelSignal,
): Promise<string> {
  const failed = new AbortController();
  const withdrawn = AbortSignal.any([toAbortSignal(signal), failed.signal]);
  const answers = [...requests].map(async ([key, request]) => {
    return [key, await askOne(request, session, out, withdrawn)] as const;
  });
  try {
    return objectText(await Promise.all(answers));
  } catch (error) {
    // The call is over: what else was asked for it is withdrawn.
    failed.abort();
    throw error;
  }
}

async function askOne(
  { method, params }: InputRequest,
  session: ClientSession,
  out: McpReply,
  withdrawn: AbortSignal,
) {
  const capability = requiredCapability(method);
  if (capability === undefined || !isObject(session.claims.capabilities[capability])) {
    throw new RpcError(
      200,
      RPC.invalidParams,
      `the server needs ${method}, which the client has not declared`,
    );
  }
  const text = `{"jsonrpc":"2.0","id":0,"method":${JSON.stringify(method)},"params":${params}}`;
  const member = await session.ask(readChildMessage(text) as RpcRequest, withdrawn, out.send);
  const answer = textAt(`{${member}}`, ['result']);
  if (answer === undefined) throw new RpcError(200, RPC.internal, `the client refused ${method}`);
  return answer;
}

function isWanted({ method, params }: RpcNotification, session: ClientSession): boolean {
  if (method !== 'notifications/message' || session.logLevel === undefined) return true;
  return isLogWanted(params.level, session.logLevel);
}

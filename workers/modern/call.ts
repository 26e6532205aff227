import { isLogWanted, META, MULTI_ROUND } from '../../mesh/eras.ts';
import { MeshError } from '../../mesh/errors.ts';
import { changeObject, objectText } from '../../mesh/json-text.ts';
import {
  changeRequest,
  progressTokenOf,
  type RpcNotification,
  type RpcRequest,
  resultText,
} from '../../mesh/jsonrpc.ts';
import type { WireText } from '../../mesh/wire-text.ts';
import type { Caller } from '../caller.ts';
import { Canceller, type CancelSignal } from '../canceller.ts';
import { type ClientProfile, NO_CLIENT, type ServerInfo } from '../connection.ts';
import type { Host } from '../host.ts';
import { restoreToken } from '../legacy/call.ts';
import type { McpReply } from '../reply.ts';
import type { Tenant } from '../tenants.ts';
import { toLegacyRequest, toModernResponse } from '../translate.ts';
import { Parked } from './parking.ts';
import type { ModernClient } from './request.ts';

/** A modern client's request on its way. */
export interface ModernCall {
  message: RpcRequest;
  client: ModernClient;
  tenant: Tenant;
  caller: Caller;
  info: ServerInfo;
  out: McpReply;
  /** The client has closed the connection, which is how it cancels. */
  gone: CancelSignal;
}

/**
 * Declared to a legacy server that serves one modern call at a time; what the call's own client lacks is refused when
 * it is asked for.
 */
const ANY_CLIENT: ClientProfile = {
  ...NO_CLIENT,
  capabilities: { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} },
};

/** A modern client's request on a server of either era; resolves with the response's text. @throws MeshError, RpcError */
export function callForModern(host: Host, call: ModernCall): Promise<WireText> {
  if (call.info.era === 'modern') return relayToModern(host, call);
  const parkable = host.service.isolation === 'session' && MULTI_ROUND.has(call.message.method);
  return parkable ? roundOnLegacy(host, call) : relayToLegacy(host, call);
}

function relayToModern({ gate }: Host, call: ModernCall): Promise<WireText> {
  const { message, client, gone } = call;
  const { server } = call.tenant;
  // Logs name no request: a second call that asks for them could not be told from the first.
  const wantsLogs = client.logLevel !== undefined && !server.logging;
  const remove = (key: string) => key === META.logLevel && !wantsLogs;
  const request = changeRequest(message, ['params', '_meta'], { remove });
  return gate.call(server, request, {
    caller: call.caller,
    signal: gone,
    onNotification: notifierOf(call),
    wantsLogs,
  });
}

async function relayToLegacy({ gate }: Host, call: ModernCall): Promise<WireText> {
  const { message, info, tenant, gone } = call;
  const text = await gate.call(tenant.server, toLegacyRequest(message), {
    caller: call.caller,
    signal: gone,
    onNotification: notifierOf(call),
  });
  return toModernResponse(message.method, text.toString(), info);
}

/** One round of a call that may ask its client: a new call, or one that waited for the answers. */
async function roundOnLegacy(host: Host, call: ModernCall): Promise<WireText> {
  const { message, client, caller, info, gone } = call;
  const { requestState } = message.params;
  const current = { onNotification: notifierOf(call), capabilities: client.capabilities };
  let parked: Parked;
  if (typeof requestState === 'string') {
    parked = host.parking.resume(requestState, message, caller.principal);
    parked.continue(current, message);
  } else {
    parked = await startOnLegacy(host, call, current);
  }
  const abandon = () => parked.giveUp();
  gone.addEventListener('abort', abandon, { once: true });
  // It may have gone while its server was started.
  if (gone.aborted) abandon();
  const round = await parked.round().finally(() => gone.removeEventListener('abort', abandon));
  if ('response' in round) {
    const text = changeObject(round.response, [], { set: { id: message.idText } });
    return toModernResponse(message.method, text, info);
  }
  if (gone.aborted) {
    // Nobody heard the questions, so nobody will bring the answers.
    abandon();
    throw new MeshError('cancelled', { delivered: 'unknown' });
  }
  const result = objectText([
    ['resultType', '"input_required"'],
    ['inputRequests', round.questions],
    ['requestState', JSON.stringify(host.parking.park(parked, message, caller.principal))],
    ['_meta', JSON.stringify({ [META.serverInfo]: info.serverInfo })],
  ]);
  return resultText(message.idText, result);
}

/** On a server of its own for as long as the call lasts: so whatever that server asks is asked by this call. */
async function startOnLegacy(
  { pool, gate }: Host,
  { message, tenant, caller }: ModernCall,
  current: {
    onNotification(notification: RpcNotification): void;
    capabilities: ModernClient['capabilities'];
  },
): Promise<Parked> {
  const lease = await pool.lease({
    prefer: 'legacy',
    client: ANY_CLIENT,
    handlers: { onNotification: notification => tenant.subscriptions.publish(notification) },
  });
  const ended = new Canceller();
  const parked = new Parked({ ...current, abort: () => ended.abort() });
  const response = gate.call(lease.connection, toLegacyRequest(message), {
    caller,
    signal: ended,
    onNotification: notification => parked.notification(notification),
    onRequest: (asked, withdrawn) => parked.question(asked, withdrawn),
  });
  response.then(lease.release, lease.release);
  parked.follow(response.then(String));
  return parked;
}

/** Progress and the logs that the request asked for, on its own stream. */
function notifierOf({ message, client, out }: ModernCall): (notification: RpcNotification) => void {
  const token = progressTokenOf(message);
  return notification => {
    const { method, params } = notification;
    const { logLevel } = client;
    if (method === 'notifications/progress') out.send(restoreToken(notification, token));
    else if (
      method === 'notifications/message' &&
      logLevel !== undefined &&
      isLogWanted(params.level, logLevel)
    ) {
      out.send(notification.text);
    }
  };
}

import { isLogLevel, LOG_LEVELS, RPC } from '../../mesh/eras.ts';
import { isObject, type JsonObject, type RpcRequest, resultText } from '../../mesh/jsonrpc.ts';
import type { LegacyUpstream } from './call.ts';
import type { ClientSession } from './client-session.ts';

/** What needs no server, or must not reach a shared one: the response's text; undefined for everything else. */
export function answerLocally(
  message: RpcRequest,
  session: ClientSession,
  { info, exclusive, subscriptions }: LegacyUpstream,
): string | undefined {
  const done = resultText(message.idText, '{}');
  const { method, params } = message;
  if (method === 'ping') return done;
  if (method.startsWith('tasks/')) return notOffered(message);
  if (exclusive && info.era === 'legacy') return undefined;
  if (method === 'logging/setLevel') {
    if (info.era === 'legacy') return notOffered(message);
    if (!isLogLevel(params.level))
      return refuse(message, RPC.invalidParams, `level must be one of ${LOG_LEVELS.join(', ')}`);
    session.logLevel = params.level;
    return done;
  }
  if (method !== 'resources/subscribe' && method !== 'resources/unsubscribe') return undefined;
  if (!hasSubscribe(info.capabilities)) return notOffered(message);
  if (method === 'resources/subscribe') session.subscriptions.add(String(params.uri));
  else session.subscriptions.delete(String(params.uri));
  subscriptions.changed();
  return done;
}

function hasSubscribe({ resources }: JsonObject): boolean {
  return isObject(resources) && resources.subscribe === true;
}

function notOffered(message: RpcRequest): string {
  return refuse(message, RPC.methodNotFound, `${message.method} is not offered here`);
}

function refuse(message: RpcRequest, code: number, text: string): string {
  const error = { code, message: text };
  return `{"jsonrpc":"2.0","id":${message.idText},"error":${JSON.stringify(error)}}`;
}

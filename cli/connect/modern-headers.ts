import { isModernMetaKey, META, MIRRORED, MODERN_VERSION } from '../../mesh/eras.ts';
import { isObject, type RpcNotification, type RpcRequest, textAt } from '../../mesh/jsonrpc.ts';
import { HEADERS } from '../../mesh/names.ts';
import type { ToolNotes } from './tool-notes.ts';

/** What a header may hold as it is; all else goes as Base64 between the sentinels. */
const PLAIN = /^(?!=\?base64\?)[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

/** Whether a message claims a modern revision for itself. */
export function isModern({ params }: RpcRequest | RpcNotification): boolean {
  return isObject(params._meta) && Object.keys(params._meta).some(isModernMetaKey);
}

/** The headers that mirror a modern message (2026-07-28, standard request headers). */
export function modernHeaders(
  message: RpcRequest | RpcNotification,
  tools: ToolNotes,
): Record<string, string> {
  const { method, params } = message;
  const version = isObject(params._meta) ? params._meta[META.protocolVersion] : undefined;
  const headers: Record<string, string> = {
    [HEADERS.protocolVersion]: encode(typeof version === 'string' ? version : MODERN_VERSION),
    'mcp-method': encode(method),
  };
  const key = MIRRORED.get(method);
  if (key !== undefined && typeof params[key] === 'string') headers['mcp-name'] = encode(params[key]);
  if (method !== 'tools/call') return headers;
  for (const { name, path } of tools.of(params.name).mirrored) {
    const json = textAt(message.text, ['params', 'arguments', ...path]);
    if (json === undefined || json === 'null') continue;
    const value: unknown = JSON.parse(json);
    // An integer's own digits: it may be beyond what a double holds.
    headers[`mcp-param-${name.toLowerCase()}`] = encode(/^-?\d+$/.test(json) ? json : String(value));
  }
  return headers;
}

function encode(value: string): string {
  return PLAIN.test(value) ? value : `=?base64?${Buffer.from(value).toString('base64')}?=`;
}

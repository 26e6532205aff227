import { isUtf8 } from 'node:buffer';
import type { IncomingHttpHeaders } from 'node:http';
import {
  isLogLevel,
  isModernMetaKey,
  LOG_LEVELS,
  META,
  MIRRORED,
  MODERN_VERSION,
  RPC,
} from '../../mesh/eras.ts';
import { isObject, type JsonObject, type RpcRequest, textAt } from '../../mesh/jsonrpc.ts';
import { RpcError } from '../../mesh/rpc-error.ts';
import type { ParamHeader, ToolCatalog } from '../tool-catalog.ts';

/** What a modern request says of its client in its `_meta`. */
export interface ModernClient {
  capabilities: JsonObject;
  logLevel?: string;
}

const DECIMAL = /^-?\d+$/;
const PARAM_PREFIX = 'mcp-param-';
const SENTINEL = /^=\?base64\?(.*)\?=$/s;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** Whether a request claims a modern revision for itself, in its body. */
export function claimsModern(params: unknown): boolean {
  return isObject(params) && isObject(params._meta) && Object.keys(params._meta).some(isModernMetaKey);
}

/**
 * Checks a modern request's envelope and headers in the order of the specification's own server: `_meta`, then header
 * against body, then the version, then the other headers. The body is the truth; a header that says something else
 * may have steered somebody's policy (2026-07-28, standard request headers).
 * @throws RpcError -32602, -32020, -32022
 */
export function readModernRequest(request: RpcRequest, headers: IncomingHttpHeaders): ModernClient {
  const meta = isObject(request.params._meta) ? request.params._meta : {};
  const version = meta[META.protocolVersion];
  const capabilities = meta[META.clientCapabilities];
  if (typeof version !== 'string') throw badMeta(META.protocolVersion, 'a string');
  if (!isObject(capabilities)) throw badMeta(META.clientCapabilities, 'an object');
  const logLevel = meta[META.logLevel];
  if (logLevel !== undefined && !isLogLevel(logLevel)) {
    throw badMeta(META.logLevel, `one of ${LOG_LEVELS.join(', ')}`);
  }
  compare('MCP-Protocol-Version', headers['mcp-protocol-version'], version);
  compare('Mcp-Method', headers['mcp-method'], request.method);
  if (version !== MODERN_VERSION) {
    const data = { supported: [MODERN_VERSION], requested: version };
    throw new RpcError(400, RPC.unsupportedVersion, `protocol version ${version} is not served`, data);
  }
  requireHeader('MCP-Protocol-Version', headers['mcp-protocol-version']);
  requireHeader('Mcp-Method', headers['mcp-method']);
  checkName(request, headers['mcp-name']);
  return { capabilities, ...(logLevel === undefined ? {} : { logLevel }) };
}

/**
 * What a request of another kind says of itself in these headers and its body does not: a proxy on the way may have
 * gone by them. undefined: nothing, as is usual, or the same.
 */
export function findNameMismatch(request: RpcRequest, headers: IncomingHttpHeaders): RpcError | undefined {
  try {
    compare('Mcp-Method', headers['mcp-method'], request.method);
    if (headers['mcp-name'] !== undefined) checkName(request, headers['mcp-name']);
    return undefined;
  } catch (fault) {
    if (fault instanceof RpcError) return fault;
    throw fault;
  }
}

/** Checks the headers that mirror arguments of a tool. @throws RpcError -32020 */
export async function checkParamHeaders(
  request: RpcRequest,
  headers: IncomingHttpHeaders,
  catalog: ToolCatalog,
): Promise<void> {
  const { name } = request.params;
  if (request.method !== 'tools/call' || typeof name !== 'string') return;
  for (const param of await catalog.paramHeaders(name))
    checkParam(param, request, headers[PARAM_PREFIX + param.name]);
}

function checkParam(
  { name, path }: ParamHeader,
  request: RpcRequest,
  header: string | string[] | undefined,
): void {
  const shown = `Mcp-Param-${name}`;
  const json = textAt(request.text, ['params', 'arguments', ...path]);
  if (json === undefined || json === 'null') {
    if (header !== undefined) throw mismatch(`${shown} has a value and the argument has none`);
    return;
  }
  if (header === undefined) throw mismatch(`${shown} is missing`);
  if (!mirrors(decode(shown, String(header)), json)) throw mismatch(`${shown} differs from the argument`);
}

/** Whether a header's text says what an argument's JSON text says; integers as such, however large. */
function mirrors(text: string, json: string): boolean {
  const value: unknown = JSON.parse(json);
  if (typeof value !== 'number') return text === String(value);
  if (!DECIMAL.test(text)) return false;
  return DECIMAL.test(json) ? BigInt(text) === BigInt(json) : Number(text) === value;
}

function checkName(request: RpcRequest, header: string | string[] | undefined): void {
  const key = MIRRORED.get(request.method);
  if (key === undefined) return;
  requireHeader('Mcp-Name', header);
  const text = decode('Mcp-Name', String(header));
  if (text !== request.params[key]) throw mismatch(`Mcp-Name differs from params.${key}`);
}

/** A header's value: plain, or Base64 of UTF-8 between the sentinels. Node's own decoder forgives what must not pass. */
function decode(name: string, header: string): string {
  const value = header.replace(/^[ \t]+|[ \t]+$/g, '');
  const encoded = SENTINEL.exec(value)?.[1];
  if (encoded === undefined) return value;
  const bytes = Buffer.from(encoded, 'base64');
  if (!BASE64.test(encoded) || !isUtf8(bytes)) throw mismatch(`${name} is not Base64 of UTF-8`);
  return bytes.toString('utf8');
}

function compare(name: string, header: string | string[] | undefined, value: string): void {
  if (header !== undefined && String(header).trim() !== value)
    throw mismatch(`${name} differs from the body`);
}

function requireHeader(name: string, header: string | string[] | undefined): void {
  if (header === undefined) throw mismatch(`${name} is missing`);
}

function mismatch(detail: string): RpcError {
  return new RpcError(400, RPC.headerMismatch, `Header mismatch: ${detail}`);
}

function badMeta(key: string, wanted: string): RpcError {
  return new RpcError(400, RPC.invalidParams, `params._meta["${key}"] must be ${wanted}`);
}

import { CACHEABLE, isModernMetaKey, META, MODERN_VERSION, RPC } from '../mesh/eras.ts';
import { changeObject, elementsOf, memberAt, membersOf } from '../mesh/json-text.ts';
import { changeRequest, isObject, type RpcRequest, textAt } from '../mesh/jsonrpc.ts';
import type { WireText } from '../mesh/wire-text.ts';
import type { ClientProfile, ServerInfo } from './connection.ts';

/**
 * The same message in the other era. Only what the eras say differently is touched; everything else, unknown members
 * included, stays as it was written.
 */

/** How long a list of a legacy server may be kept by its client: not at all, since a change is not always told. */
const NO_CACHE = { ttlMs: '0', cacheScope: '"private"' };
const MODERN_ONLY_ERRORS = new Set<number>([
  RPC.headerMismatch,
  RPC.missingCapability,
  RPC.unsupportedVersion,
]);

/** A modern client's request for a legacy server. */
export function toLegacyRequest(request: RpcRequest): RpcRequest {
  const { _meta: meta, inputResponses, requestState } = request.params;
  const plain = isObject(meta)
    ? changeRequest(request, ['params', '_meta'], { remove: isModernMetaKey })
    : request;
  if (inputResponses === undefined && requestState === undefined) return plain;
  return changeRequest(plain, ['params'], {
    remove: key => key === 'inputResponses' || key === 'requestState',
  });
}

/** A legacy server's response for a modern client. */
export function toModernResponse(method: string, text: string, info: ServerInfo): string {
  const error = errorOf(text);
  if (error) return toModernError(text, error);
  const cache = CACHEABLE.has(method) ? NO_CACHE : {};
  const listed =
    method === 'tools/list'
      ? changeTools(text, tool => changeObject(tool, [], { remove: isExecution }))
      : text;
  const named = changeObject(listed, ['result', '_meta'], {
    set: { [META.serverInfo]: JSON.stringify(info.serverInfo) },
  });
  return changeObject(named, ['result'], { set: { resultType: '"complete"', ...cache } });
}

/** A legacy client's request for a modern server, which is told everything with each request. */
export function toModernRequest(request: RpcRequest, client: ClientProfile, logLevel?: string): RpcRequest {
  const set = {
    [META.protocolVersion]: JSON.stringify(MODERN_VERSION),
    [META.clientCapabilities]: JSON.stringify(client.capabilities),
    [META.clientInfo]: JSON.stringify(client.clientInfo),
    ...(logLevel === undefined ? {} : { [META.logLevel]: JSON.stringify(logLevel) }),
  };
  return changeRequest(request, ['params', '_meta'], { set, remove: isModernMetaKey });
}

/** A modern server's response for a legacy client. */
export function toLegacyResponse(method: string, text: string): string {
  const error = errorOf(text);
  if (error) return toLegacyError(text, error);
  let legacy = changeObject(text, ['result'], {
    remove: key => key === 'resultType' || key === 'ttlMs' || key === 'cacheScope',
  });
  if (memberAt(legacy, ['result', '_meta'])) legacy = withoutModernMeta(legacy);
  if (method === 'tools/list') return changeTools(legacy, wrapOutputSchema);
  if (method === 'tools/call') return wrapStructuredContent(legacy);
  return legacy;
}

/** A request that a server wants its client to answer; its params as JSON text. */
export interface InputRequest {
  method: string;
  params: string;
}

/** A result that asks the client for something (2026-07-28, multi round-trip requests). */
interface InputRequired {
  requests: Map<string, InputRequest>;
  /** To be brought back as it is, as JSON text. */
  requestState: string | undefined;
}

export function readInputRequired(text: string): InputRequired | undefined {
  if (!text.includes('"input_required"')) return undefined;
  const { result } = JSON.parse(text) as { result?: unknown };
  if (!isObject(result) || result.resultType !== 'input_required') return undefined;
  const requests = new Map<string, InputRequest>();
  for (const [key, request] of Object.entries(isObject(result.inputRequests) ? result.inputRequests : {})) {
    if (!isObject(request) || typeof request.method !== 'string') continue;
    const params = textAt(text, ['result', 'inputRequests', key, 'params']) ?? '{}';
    requests.set(key, { method: request.method, params });
  }
  return { requests, requestState: textAt(text, ['result', 'requestState']) };
}

export function errorOf(text: WireText): { code: number; message: string; data?: unknown } | undefined {
  const error = textAt(text, ['error']);
  return error === undefined ? undefined : JSON.parse(error);
}

/** `_meta` goes altogether when nothing of it is left. */
function withoutModernMeta(text: string): string {
  const meta = memberAt(text, ['result', '_meta']);
  if (!meta || text[meta.start] !== '{') return text;
  const left = membersOf(text, meta.start).some(({ key }) => !isModernMetaKey(key));
  if (left) return changeObject(text, ['result', '_meta'], { remove: isModernMetaKey });
  return changeObject(text, ['result'], { remove: key => key === '_meta' });
}

/** -32042 (2025-11-25): the server wants the client to open URLs first; a modern one says so with input_required. */
function toModernError(text: string, error: { code: number; data?: unknown }): string {
  if (error.code === RPC.resourceNotFound)
    return changeObject(text, ['error'], { set: { code: String(RPC.invalidParams) } });
  const elicitations = isObject(error.data) ? error.data.elicitations : undefined;
  if (error.code !== RPC.urlElicitation) return text;
  // The code must not be emitted to modern clients, even by a server that forgot to say which URLs.
  if (!Array.isArray(elicitations))
    return changeObject(text, ['error'], { set: { code: String(RPC.internal) } });
  const inputRequests = Object.fromEntries(
    elicitations
      .filter(isObject)
      .map(({ elicitationId: _id, ...params }, i) => [
        `url_${i + 1}`,
        { method: 'elicitation/create', params: { ...params, mode: 'url' } },
      ]),
  );
  const result = JSON.stringify({ resultType: 'input_required', inputRequests });
  return changeObject(text, [], { set: { result }, remove: key => key === 'error' });
}

function toLegacyError(text: string, error: { code: number }): string {
  if (!MODERN_ONLY_ERRORS.has(error.code)) return text;
  return changeObject(text, ['error'], { set: { code: String(RPC.invalidParams) } });
}

function changeTools(text: string, change: (tool: string) => string): string {
  const tools = memberAt(text, ['result', 'tools']);
  if (!tools || text[tools.start] !== '[') return text;
  const changed = elementsOf(text, tools.start).map(({ start, end }) => change(text.slice(start, end)));
  return `${text.slice(0, tools.start)}[${changed.join(',')}]${text.slice(tools.end)}`;
}

/** `execution` belongs to the tasks of 2025-11-25, which a modern client cannot use. */
function isExecution(key: string): boolean {
  return key === 'execution';
}

/** Legacy output is an object; the SDK wraps any other as `{result: …}`, schema and value alike. */
function wrapOutputSchema(tool: string): string {
  const schema = memberAt(tool, ['outputSchema']);
  if (!schema) return tool;
  const json = tool.slice(schema.start, schema.end);
  const parsed: unknown = JSON.parse(json);
  if (!isObject(parsed) || parsed.type === 'object') return tool;
  const wrapped = `{"type":"object","properties":{"result":${json}},"required":["result"]}`;
  return changeObject(tool, [], { set: { outputSchema: wrapped } });
}

function wrapStructuredContent(text: string): string {
  const content = memberAt(text, ['result', 'structuredContent']);
  if (!content || text[content.start] === '{') return text;
  const set = { structuredContent: `{"result":${text.slice(content.start, content.end)}}` };
  return changeObject(text, ['result'], { set });
}

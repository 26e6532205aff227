import { isObject } from '../mesh/jsonrpc.ts';

/**
 * The two tables that the Lua of kong/handoff.lua exchanges with the plugin through kong.ctx.shared: not headers,
 * which a client could forge while the plugin server is down.
 */

export const REQUEST_KEY = 'mesh_request';
export const DECISION_KEY = 'mesh_decision';

export interface MeshRequest {
  method: string;
  /** Percent-encoded as Kong normalised it, without the query. */
  path: string;
  query: string;
  clientIp: string;
  /** Lower-case names; of several values of one header the first. */
  headers: Record<string, string>;
  /** The same with all values: what identifies a caller must not come twice. */
  allHeaders: Record<string, string | string[]>;
  /** Of requests to the mesh's own API only; undefined when it is larger than pre-function reads (64 KB). */
  body: string | undefined;
}

/** Kong answers the client. */
export interface AnswerDecision {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** Kong sends the request to the first target, and to the next only when the connection failed. */
export interface RouteDecision {
  targets: [host: string, port: number][];
  /** Host header; default: that of the target. */
  host?: string;
  path: string;
  headers: Record<string, string>;
  /** For the client, beside those of the worker's answer. */
  answer_headers?: Record<string, string>;
  /** Milliseconds: connect, write, read. */
  timeouts: [number, number, number];
  /** Comes back in the log phase. */
  record: CallRecord;
  /** What the client gets when Kong itself has to answer, because a worker was lost (502) or silent (504). */
  failure: { type: string; lost: string; late: string };
}

export type Decision = AnswerDecision | RouteDecision;

export interface CallRecord {
  call_id: string;
  /** What the call holds until the log phase, under an id of the gateway's own. */
  lease: string;
  service: string;
  /** Instance ids in the order of the decision's targets. */
  instances: string[];
  /** Number of the decision (decisions.ts). */
  decision?: number;
  trace?: SpanRecord;
}

/** The gateway's own span of the call, as values of `traceparent`. */
export interface SpanRecord {
  self: string;
  /** Of the span that the caller names. */
  parent?: string;
}

/** What pre-function left, with the looseness of Lua tables taken out; undefined when it is no request. */
export function readRequest(value: unknown): MeshRequest | undefined {
  if (!isObject(value) || typeof value.method !== 'string' || typeof value.path !== 'string')
    return undefined;
  const text = (part: unknown) => (typeof part === 'string' ? part : '');
  const request: MeshRequest = {
    method: value.method,
    path: value.path,
    query: text(value.query),
    clientIp: text(value.client_ip),
    headers: {},
    allHeaders: {},
    body: value.body_over_limit === true ? undefined : bodyText(value.body),
  };
  addHeaders(request, value.headers);
  return request;
}

/** Takes in a table of headers, over those that are there. */
export function addHeaders({ headers, allHeaders }: MeshRequest, table: unknown): void {
  // An empty Lua table crosses as [], a repeated header as an array among strings.
  for (const [name, raw] of Object.entries(isObject(table) ? table : {})) {
    const all = (Array.isArray(raw) ? raw : [raw]).filter(item => typeof item === 'string');
    const [first] = all;
    if (first === undefined) continue;
    headers[name.toLowerCase()] = first;
    allHeaders[name.toLowerCase()] = all.length > 1 ? all : first;
  }
}

/** A Lua string crosses as text or as bytes. */
function bodyText(body: unknown): string {
  if (body instanceof Uint8Array) return Buffer.from(body).toString('utf8');
  return typeof body === 'string' ? body : '';
}

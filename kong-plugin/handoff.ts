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
  path: string;
  headers: Record<string, string>;
  /** For the client, beside those of the worker's answer. */
  answer_headers?: Record<string, string>;
  /** Milliseconds: connect, write, read. */
  timeouts: [number, number, number];
  /** Comes back in the log phase. */
  record: CallRecord;
  /** What the client gets when Kong itself has to answer because a worker died. */
  failure: { type: string; body: string };
}

export type Decision = AnswerDecision | RouteDecision;

export interface CallRecord {
  call_id: string;
  service: string;
  /** Instance ids in the order of the decision's targets. */
  instances: string[];
}

/** What pre-function left, with the looseness of Lua tables taken out; undefined when it is no request. */
export function readRequest(value: unknown): MeshRequest | undefined {
  if (!isObject(value) || typeof value.method !== 'string' || typeof value.path !== 'string')
    return undefined;
  const headers: Record<string, string> = {};
  // An empty Lua table crosses as [], a repeated header as an array among strings.
  for (const [name, raw] of Object.entries(isObject(value.headers) ? value.headers : {})) {
    const first: unknown = Array.isArray(raw) ? raw[0] : raw;
    if (typeof first === 'string') headers[name.toLowerCase()] = first;
  }
  const text = (part: unknown) => (typeof part === 'string' ? part : '');
  return {
    method: value.method,
    path: value.path,
    query: text(value.query),
    clientIp: text(value.client_ip),
    headers,
  };
}

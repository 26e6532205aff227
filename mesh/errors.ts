import { STATUS_CODES } from 'node:http';

/** Whether the call may have reached the MCP server: decides if it is safe to send it again. */
export type Delivered = 'no' | 'yes' | 'unknown';

interface CatalogueEntry {
  status: number;
  /** JSON-RPC error code (spec codes where one fits; else -32603, since the spec defines none for overload). */
  rpc: number;
  title: string;
  /** What the caller can do about it. */
  advice: string;
}

const INVALID_REQUEST = -32600;
const INVALID_PARAMS = -32602;
const INTERNAL = -32603;

const CATALOGUE = {
  unauthenticated: entry(401, INVALID_REQUEST, 'Authentication required', 'Send a valid API key or token.'),
  forbidden: entry(403, INVALID_REQUEST, 'Not allowed', 'Ask for a role that allows this.'),
  unknown_service: entry(404, INVALID_REQUEST, 'Unknown service', 'GET /api/v1/mcp lists the services.'),
  unknown_path: entry(404, INVALID_REQUEST, 'Unknown path', 'Use one of the paths that the detail names.'),
  unknown_instance: entry(
    404,
    INVALID_REQUEST,
    'Unknown instance',
    'GET /api/v1/mesh/v2/services lists the instances.',
  ),
  unknown_session: entry(404, -32001, 'Unknown session', 'Initialize again without a session id.'),
  unknown_tool: entry(404, INVALID_PARAMS, 'Unknown tool', 'GET …/tools lists the tools.'),
  invalid_request: entry(400, INVALID_REQUEST, 'Invalid request', 'Mend the request as the detail says.'),
  parse_error: entry(400, -32700, 'Body is not JSON', 'Send one JSON document in UTF-8.'),
  invalid_arguments: entry(
    422,
    INVALID_PARAMS,
    'Invalid arguments',
    'Mend the arguments as the detail says.',
  ),
  method_not_allowed: entry(405, INVALID_REQUEST, 'Method not allowed', 'Use a method that Allow names.'),
  not_acceptable: entry(406, INVALID_REQUEST, 'Not acceptable', 'Accept what the detail names.'),
  unsupported_media_type: entry(415, INVALID_REQUEST, 'Unsupported media type', 'Send application/json.'),
  conflict: entry(409, INVALID_REQUEST, 'Conflict', 'Mend what the detail names, or choose another id.'),
  headers_too_large: entry(431, INVALID_REQUEST, 'Headers too large', 'Send fewer or shorter headers.'),
  too_large: entry(413, INVALID_REQUEST, 'Too large', 'Send less, or raise limits.request_bytes.'),
  cancelled: entry(499, INTERNAL, 'Cancelled by the client', 'Nothing: the client asked for it.'),
  rate_limited: entry(429, INTERNAL, 'Rate limit reached', 'Wait as Retry-After says.'),
  quota_exceeded: entry(
    429,
    INTERNAL,
    'Quota used up',
    'Wait for the next period or ask for a larger quota.',
  ),
  too_many_in_flight: entry(
    429,
    INTERNAL,
    'Too many requests in flight',
    'Wait for answers before sending more.',
  ),
  no_healthy_instance: entry(
    503,
    INTERNAL,
    'No healthy instance',
    'Try again later; the detail says what is wrong.',
  ),
  queue_full: entry(503, INTERNAL, 'Queue is full', 'Try again as Retry-After says.'),
  draining: entry(503, INTERNAL, 'Instance is draining', 'Try again: another instance will answer.'),
  circuit_open: entry(503, INTERNAL, 'Circuit breaker is open', 'Try again as Retry-After says.'),
  child_unavailable: entry(
    503,
    INTERNAL,
    'MCP server is not running',
    'Try again later; it is being restarted.',
  ),
  child_crashed: entry(502, INTERNAL, 'MCP server crashed', 'Try again if the tool may run twice.'),
  protocol_error: entry(
    502,
    INTERNAL,
    'MCP server broke the protocol',
    'Report it to the owner of the server.',
  ),
  server_error: entry(
    502,
    INTERNAL,
    'MCP server answered with an error',
    "Read the detail: it is the server's own text.",
  ),
  timeout: entry(504, INTERNAL, 'MCP server did not answer in time', 'Try again if the tool may run twice.'),
  worker_lost: entry(502, INTERNAL, 'Worker lost', 'Try again if the tool may run twice.'),
  consul_unavailable: entry(
    503,
    INTERNAL,
    'Consul unavailable',
    "Try again later; the gateway's log says what is wrong.",
  ),
  internal: entry(500, INTERNAL, 'Internal error', 'Report it with the call id.'),
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof CATALOGUE;

export const ERROR_CODES = Object.keys(CATALOGUE) as ErrorCode[];

/** One thing that is wrong with the arguments of a tool. */
export interface ArgumentFault {
  /** Where in the arguments, as JSON pointer (RFC 6901). */
  pointer: string;
  detail: string;
}

interface MeshErrorOptions {
  /** Text for the caller; never internals when the status is 500 or more. */
  detail?: string;
  delivered?: Delivered;
  retryAfterMs?: number;
  /** Of `invalid_arguments`, where each of them is known. */
  errors?: readonly ArgumentFault[];
  cause?: unknown;
}

/** A fault that has a place in the catalogue. Callers switch on `code`, never on the text. */
export class MeshError extends Error {
  readonly code: ErrorCode;
  readonly delivered: Delivered;
  readonly retryAfterMs: number | undefined;
  readonly errors: readonly ArgumentFault[] | undefined;

  constructor(code: ErrorCode, options: MeshErrorOptions = {}) {
    super(options.detail ?? CATALOGUE[code].title, { cause: options.cause });
    this.name = 'MeshError';
    this.code = code;
    this.delivered = options.delivered ?? 'no';
    this.retryAfterMs = options.retryAfterMs;
    this.errors = options.errors;
  }

  /** HTTP status of the catalogue entry. */
  get status(): number {
    return CATALOGUE[this.code].status;
  }
}

/** Every fault as a catalogue error; what is not one becomes `internal` and keeps the original as `cause`. */
export function toMeshError(fault: unknown): MeshError {
  if (fault instanceof MeshError) return fault;
  return new MeshError('internal', { delivered: 'unknown', cause: fault });
}

export interface Problem {
  type: string;
  title: string;
  status: number;
  code: ErrorCode;
  detail: string;
  advice: string;
  delivered: Delivered;
  call_id?: string;
  retry_after_ms?: number;
  errors?: readonly ArgumentFault[];
}

/** The error as RFC 9457 problem details (`application/problem+json`). */
export function toProblem(error: MeshError, callId?: string): Problem {
  const { status, title, advice } = CATALOGUE[error.code];
  return {
    type: `urn:mcp-mesh:error:${error.code}`,
    title,
    status,
    code: error.code,
    detail: error.message,
    advice,
    delivered: error.delivered,
    ...(callId === undefined ? {} : { call_id: callId }),
    ...(error.retryAfterMs === undefined ? {} : { retry_after_ms: error.retryAfterMs }),
    ...(error.errors === undefined ? {} : { errors: error.errors }),
  };
}

export interface RpcErrorObject {
  code: number;
  message: string;
  data: Omit<Problem, 'type' | 'title' | 'status' | 'detail'>;
}

/** The error as the `error` member of a JSON-RPC response (JSON-RPC 2.0 §5.1). */
export function toRpcError(error: MeshError, callId?: string): RpcErrorObject {
  const { type: _type, title, status: _status, detail, ...data } = toProblem(error, callId);
  const message = detail === title ? title : `${title}: ${detail}`;
  return { code: CATALOGUE[error.code].rpc, message, data };
}

/** Headers that every error answer carries, whatever its body's format. */
export function errorHeaders(error: MeshError): Record<string, string> {
  if (error.retryAfterMs === undefined) return {};
  return { 'retry-after': String(Math.max(1, Math.ceil(error.retryAfterMs / 1000))) };
}

/** Reason phrase and status of an error, for log lines. */
export function describeError(error: MeshError): string {
  return `${error.status} ${STATUS_CODES[error.status] ?? ''} ${error.code}: ${error.message}`;
}

function entry(status: number, rpc: number, title: string, advice: string): CatalogueEntry {
  return { status, rpc, title, advice };
}

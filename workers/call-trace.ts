import type { IncomingHttpHeaders } from 'node:http';
import { changeRequest, isObject, type RpcRequest } from '../mesh/jsonrpc.ts';
import { formatTraceparent, parseTraceContext, type TraceContext } from '../mesh/trace-context.ts';
import type { WireText } from '../mesh/wire-text.ts';
import type { Caller } from './caller.ts';

/** How calls are followed through the worker. */
export interface Tracing {
  /** Begins to follow a call. */
  begin(request: RpcRequest, caller: Caller): CallTrace;
  /** Sends what has been gathered. Never rejects. */
  close(): Promise<void>;
}

/** What a call's trace tells of the server that it goes to. */
export interface TracedServer {
  readonly pid?: number | undefined;
  /** Counts the processes that were started for it, from 1; undefined for one that is never started again. */
  readonly generation?: number | undefined;
  readonly info: { protocolVersion: string } | undefined;
}

/** Where the time of one call went, in the words of the audit log. */
export interface CallAccount {
  queue_ms: number;
  execution_ms: number;
  attempts: number;
  /** Error codes of the attempts that were followed by another. */
  retried?: string[];
  child_pid?: number;
  child_generation?: number;
  trace_id?: string;
}

/** The text of a response, or the code of an error. */
export type CallResult = { text: WireText } | { code: string };

interface Origin {
  /** By performance.now(). */
  at: number;
  headers: IncomingHttpHeaders;
}

/** Of a call that comes from elsewhere than HTTP. */
const NO_HEADERS: IncomingHttpHeaders = {};

/** One call, followed from its arrival to its end: what it waited for, and which attempts it took. */
export class CallTrace {
  /** Of the body before that of the HTTP request: one request may carry several calls (MCP semantic conventions). */
  protected readonly parent: TraceContext | undefined;
  /** The HTTP request's own, when it is another one. */
  protected readonly ambient: TraceContext | undefined;
  #state: 'idle' | 'waiting' | 'inside' = 'idle';
  #since = 0;
  /** Of the last attempt. */
  #failure: string | undefined;
  #account: CallAccount = { queue_ms: 0, execution_ms: 0, attempts: 0 };
  readonly #fromBody: boolean;

  constructor(request: RpcRequest, headers: IncomingHttpHeaders) {
    const meta = request.params._meta;
    const inBody = isObject(meta) ? parseTraceContext(meta.traceparent, meta.tracestate) : undefined;
    const { traceparent, tracestate } = headers;
    const inHeaders = traceparent === undefined ? undefined : parseTraceContext(traceparent, tracestate);
    this.parent = inBody ?? inHeaders;
    this.ambient = inBody ? inHeaders : undefined;
    this.#fromBody = isObject(meta) && meta.traceparent !== undefined;
  }

  get traceId(): string | undefined {
    return this.parent?.traceId;
  }

  /** The call waits for a place in its server. */
  waits(): void {
    if (this.#failure !== undefined) this.retries(this.#failure);
    this.#failure = undefined;
    this.#account.attempts += 1;
    this.#turn('waiting');
  }

  /** It has its place; returns the request as the server is to get it. */
  enters(request: RpcRequest, { pid, generation }: TracedServer): RpcRequest {
    this.#turn('inside');
    if (pid !== undefined) this.#account.child_pid = pid;
    if (generation !== undefined) this.#account.child_generation = generation;
    // Somebody who is not part of a trace passes it on (W3C Trace Context §2.2); a body that has one is left as it is.
    return this.parent && !this.#fromBody ? withTraceContext(request, this.parent) : request;
  }

  /** The attempt is over: with the text of the response, or with an error's code. */
  leaves(result: CallResult): void {
    if ('code' in result) this.#failure = result.code;
    this.#turn('idle');
  }

  /** There is another attempt, because of this error. */
  protected retries(code: string): void {
    this.#account.retried = [...(this.#account.retried ?? []), code];
  }

  /** The call is over. */
  ends(_result: CallResult): void {
    this.#turn('idle');
  }

  /** For the audit log. */
  account(): CallAccount {
    const { queue_ms, execution_ms, ...rest } = this.#account;
    const { traceId } = this;
    return {
      queue_ms: Math.round(queue_ms),
      execution_ms: Math.round(execution_ms),
      ...rest,
      ...(traceId === undefined ? {} : { trace_id: traceId }),
    };
  }

  #turn(state: 'idle' | 'waiting' | 'inside'): void {
    const now = performance.now();
    if (this.#state === 'waiting') this.#account.queue_ms += now - this.#since;
    if (this.#state === 'inside') this.#account.execution_ms += now - this.#since;
    this.#state = state;
    this.#since = now;
  }
}

/** Where a call came from; one without an origin began now. */
export function originOf({ origin }: Caller): Origin {
  return origin ?? { at: performance.now(), headers: NO_HEADERS };
}

/** The request in a trace, as SEP-414 has it: `_meta.traceparent`, and `_meta.tracestate` when there is one. */
export function withTraceContext(request: RpcRequest, context: TraceContext): RpcRequest {
  const { _meta: meta } = request.params;
  // What is no object is the server's to refuse.
  if (meta !== undefined && !isObject(meta)) return request;
  const state = context.state === '' ? {} : { tracestate: JSON.stringify(context.state) };
  const set = { traceparent: JSON.stringify(formatTraceparent(context)), ...state };
  // A state that is left over belongs to a trace that is not continued.
  return changeRequest(request, ['params', '_meta'], { set, remove: key => key === 'tracestate' });
}

import type { Logger } from 'pino';
import { RPC } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import {
  type AnswerKind,
  isObject,
  notificationText,
  type RpcMessage,
  type RpcNotification,
  type RpcRequest,
  type RpcResponse,
  readChildMessage,
  requestText,
  rewriteRequest,
  withId,
} from '../mesh/jsonrpc.ts';
import { readJson } from '../mesh/read-json.ts';
import type { WireText } from '../mesh/wire-text.ts';
import type { CancelSignal } from './canceller.ts';
import { createClock } from './clock.ts';
import { InFlight } from './in-flight.ts';

/** What answers a request of the server's: the member `"result":…` or `"error":…` of the response, as JSON text. */
export type AnswerMember = string;

export interface CallOptions {
  /** Time for the server alone: it stands still while the server waits for an answer of the client. */
  timeoutMs: number;
  /** Cancels the call, at the server too. */
  signal?: CancelSignal | undefined;
  /** Progress of this call, and the logs that are certainly its own; the progress token is ours. */
  onNotification?: ((notification: RpcNotification) => void) | undefined;
  /** A request of the server's that is certainly part of this call; the signal says that the server withdrew it. */
  onRequest?: ((request: RpcRequest, withdrawn: AbortSignal) => Promise<AnswerMember>) | undefined;
  /** The server has answered. */
  onAnswer?: ((kind: AnswerKind) => void) | undefined;
  /** The call asks for logs (2026-07-28). */
  wantsLogs?: boolean;
  /** The time is the caller's own wish, shorter than the service's: running out of it is no failure of the server. */
  impatient?: boolean;
}

interface MultiplexerOptions {
  /** Hands one line to the child; false when it can no longer read it. `alone`: of a call beside which there is no other. */
  write(line: WireText, alone?: boolean): boolean;
  /**
   * All calls belong to one client, so everything the server says is for that client. On a shared server a request or
   * log that names no call belongs to nobody for certain, and is refused or dropped: never guessed at, never broadcast.
   */
  exclusive: boolean;
  /** A notification that belongs to no call, such as `notifications/tools/list_changed`. */
  onNotification(notification: RpcNotification): void;
  /** A request that comes while no call is open, on an exclusive server. */
  onRequest?: ((request: RpcRequest, withdrawn: AbortSignal) => Promise<AnswerMember>) | undefined;
  log: Logger;
}

interface Pending {
  options: CallOptions;
  resolve(response: RpcResponse): void;
  reject(error: MeshError): void;
  /** Stops the clock until the returned function is called. */
  hold(): () => void;
}

/** An id near the start of an otherwise unread line, as most servers write it. */
const EARLY_ID = /^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+)\s*,/;
/** How long a server may go on logging for a call that was cancelled. */
const LATE_LOGS_MS = 60_000;
const EMPTY_RESULT = '"result":{}';

/**
 * Many clients on one child: every request gets an id of ours, every progress token becomes that id, and answers
 * find their way back by it.
 */
export class Multiplexer {
  readonly #options: MultiplexerOptions;
  readonly #pending = new InFlight<number, Pending>();
  /** Requests of the server's that wait for a client, by their id's JSON text. */
  readonly #asked = new Map<string, AbortController>();
  /** Calls that asked for logs and were given up: until the server answers them, its logs may be theirs. */
  readonly #lateLoggers = new Set<number>();
  #lastId = 0;

  constructor(options: MultiplexerOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  /** Whether the server waits for an answer of a client. */
  get asking(): boolean {
    return this.#asked.size > 0;
  }

  /** Whether the server may be logging for a call already: another could not be told from it (2026-07-28 logging). */
  get logging(): boolean {
    if (this.#lateLoggers.size > 0) return true;
    return this.#pending.values().some(({ options }) => options.wantsLogs === true);
  }

  /**
   * Sends a request of a client; resolves with the response's text under the client's own id.
   * @throws MeshError `child_unavailable` (not written), `timeout`, `child_crashed`, `cancelled`
   */
  call(request: RpcRequest, options: CallOptions): Promise<WireText> {
    const line = (id: number) => rewriteRequest(request, id);
    return this.#send(line, options).then(response => {
      if (response.answer) options.onAnswer?.(response.answer);
      return withId(response, request.idText);
    });
  }

  /** Sends a request of our own and resolves with its response. @throws MeshError as `call` */
  ask(method: string, params: unknown, options: CallOptions): Promise<RpcResponse> {
    return this.#send(id => requestText(id, method, params), options);
  }

  notify(method: string, params?: unknown): void {
    this.#options.write(notificationText(method, params));
  }

  /** A line that the child wrote. */
  receive(line: WireText): void {
    const message = this.#parse(line);
    if (message?.kind === 'request') this.#answer(message);
    else if (message?.kind === 'notification') this.#dispatch(message);
    else if (message && typeof message.id === 'number') this.#settle(message.id, message);
  }

  /** A line of the child that was dropped for its length; `head` is how it began. */
  receiveTooLong(head: string): void {
    this.#options.log.warn({ head: head.slice(0, 80) }, 'a line beyond limits.line_bytes was dropped');
    const id = EARLY_ID.exec(head)?.[1];
    if (id === undefined) return;
    const detail = 'the answer is longer than limits.line_bytes';
    this.#pending.get(Number(id))?.reject(new MeshError('protocol_error', { detail, delivered: 'yes' }));
  }

  /** The child is gone: everything in flight fails with this error. */
  fail(error: MeshError): void {
    for (const pending of this.#pending.values()) pending.reject(error);
    for (const asked of this.#asked.values()) asked.abort();
    this.#asked.clear();
    this.#lateLoggers.clear();
  }

  #send(line: (id: number) => WireText, options: CallOptions): Promise<RpcResponse> {
    this.#lastId += 1;
    const id = this.#lastId;
    const { timeoutMs, signal } = options;
    return new Promise((resolve, reject) => {
      const settled = <T>(outcome: (value: T) => void) => {
        return (value: T) => {
          this.#pending.delete(id);
          clock.stop();
          signal?.removeEventListener('abort', abort);
          outcome(value);
        };
      };
      const giveUp = (code: 'timeout' | 'cancelled', reason: string) => {
        if (options.wantsLogs) this.#distrustLogs(id);
        this.notify('notifications/cancelled', { requestId: id, reason });
        pending.reject(new MeshError(code, { detail: reason, delivered: 'unknown' }));
      };
      const abort = () => giveUp('cancelled', 'the client cancelled the request');
      const clock = createClock(timeoutMs, () => giveUp('timeout', `no answer within ${timeoutMs} ms`));
      const pending: Pending = {
        options,
        resolve: settled(resolve),
        reject: settled(reject),
        hold: clock.hold,
      };
      this.#pending.set(id, pending);
      if (signal?.aborted) {
        pending.reject(new MeshError('cancelled', { delivered: 'no' }));
        return;
      }
      signal?.addEventListener('abort', abort, { once: true });
      if (!this.#options.write(line(id), this.#pending.size === 1))
        pending.reject(new MeshError('child_unavailable', { delivered: 'no' }));
    });
  }

  #settle(id: number, response: RpcResponse): void {
    this.#lateLoggers.delete(id);
    const pending = this.#pending.get(id);
    // What is built on an answer must not meet anything but an object.
    if (response.answer) pending?.resolve(response);
    else
      pending?.reject(
        new MeshError('protocol_error', { detail: 'the answer is no object', delivered: 'yes' }),
      );
  }

  #answer(request: RpcRequest): void {
    const send = (member: AnswerMember) =>
      this.#options.write(`{"jsonrpc":"2.0","id":${request.idText},${member}}`);
    if (request.method === 'ping') {
      send(EMPTY_RESULT);
      return;
    }
    const owner = this.#options.exclusive ? this.#lastCall() : undefined;
    const handle = owner
      ? owner.options.onRequest
      : this.#options.exclusive
        ? this.#options.onRequest
        : undefined;
    if (!handle) {
      // What a client answers that has not declared the capability.
      send(errorMember(RPC.methodNotFound, `${request.method} is not available here`));
      return;
    }
    const asked = new AbortController();
    this.#asked.set(request.idText, asked);
    const release = owner?.hold();
    void handle(request, asked.signal)
      .catch((error: Error) => errorMember(RPC.internal, error.message))
      .then(member => {
        release?.();
        if (this.#asked.get(request.idText) === asked) this.#asked.delete(request.idText);
        if (!asked.signal.aborted) send(member);
      });
  }

  #dispatch(notification: RpcNotification): void {
    const { method, params } = notification;
    if (method === 'notifications/progress') {
      const { progressToken } = params;
      if (typeof progressToken === 'number')
        this.#pending.get(progressToken)?.options.onNotification?.(notification);
      return;
    }
    if (method === 'notifications/cancelled') {
      this.#asked.get(JSON.stringify(params.requestId))?.abort();
      return;
    }
    if (method !== 'notifications/message') {
      this.#options.onNotification(notification);
      return;
    }
    const owner = this.#options.exclusive ? this.#lastCall() : this.#logger();
    if (owner?.options.onNotification) owner.options.onNotification(notification);
    else if (this.#options.exclusive) this.#options.onNotification(notification);
  }

  /** On an exclusive server: the call that what the server says now belongs to, or is at least fit to carry it. */
  #lastCall(): Pending | undefined {
    return this.#pending.values().findLast(({ options }) => options.onNotification ?? options.onRequest);
  }

  /** A server that heeds the cancel never answers, so after a while silence has to do. */
  #distrustLogs(id: number): void {
    this.#lateLoggers.add(id);
    setTimeout(() => this.#lateLoggers.delete(id), LATE_LOGS_MS).unref();
  }

  /** On a shared server: the only call that asked for logs, when none of an earlier one can be among them. */
  #logger(): Pending | undefined {
    if (this.#lateLoggers.size > 0) return undefined;
    return this.#pending.values().find(({ options }) => options.wantsLogs);
  }

  #parse(line: WireText): RpcMessage | undefined {
    try {
      return readChildMessage(line);
    } catch (error) {
      // Servers print banners and debug output to stdout; a client is expected to skip them.
      this.#options.log.warn(
        { line: line.slice(0, 200) },
        'the server wrote a line that is no JSON-RPC message',
      );
      this.#refuseAnswer(line.toString(), error as Error);
      return undefined;
    }
  }

  /** What is no message but clearly meant as an answer: its call need not wait until its time is up. */
  #refuseAnswer(line: string, { message }: Error): void {
    const value = readJson(line);
    if (!isObject(value) || value.method !== undefined || typeof value.id !== 'number') return;
    const detail = `the answer is no JSON-RPC response (${message})`;
    this.#pending.get(value.id)?.reject(new MeshError('protocol_error', { detail, delivered: 'yes' }));
  }
}

export function errorMember(code: number, message: string): AnswerMember {
  return `"error":${JSON.stringify({ code, message })}`;
}

/** The result of a response. @throws MeshError `protocol_error` with the server's own text when it is an error */
export function resultOf(response: RpcResponse): unknown {
  const { error, result } = response.value;
  if (!isObject(error)) return result;
  throw new MeshError('protocol_error', { detail: String(error.message), delivered: 'yes' });
}

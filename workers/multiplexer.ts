import type { Logger } from 'pino';
import { MeshError } from '../mesh/errors.ts';
import {
  isObject,
  notificationText,
  progressTokenOf,
  type RpcMessage,
  type RpcNotification,
  type RpcRequest,
  type RpcResponse,
  readChildMessage,
  requestText,
  rewriteAt,
  rewriteRequest,
} from '../mesh/jsonrpc.ts';

export interface CallOptions {
  timeoutMs: number;
  /** Receives the notifications that belong to this call, with the caller's own progress token. */
  onNotification?: (text: string) => void;
  /** Cancels the call, at the server too. */
  signal?: AbortSignal;
}

interface MultiplexerOptions {
  /** Hands one line to the child; false when it can no longer read it. */
  write(line: string): boolean;
  /** A notification that belongs to no single call, such as `notifications/tools/list_changed`. */
  onNotification(notification: RpcNotification): void;
  log: Logger;
}

interface Outgoing extends CallOptions {
  line(id: number): string;
  /** JSON text of the caller's own progress token. */
  progressToken?: string | undefined;
}

interface Pending {
  resolve(response: RpcResponse): void;
  reject(error: MeshError): void;
  onProgress?: (notification: RpcNotification) => void;
}

const METHOD_NOT_FOUND = -32601;
/** An id near the start of an otherwise unread line, as most servers write it. */
const EARLY_ID = /^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+)\s*,/;

/**
 * Many clients on one child: every request gets an id of ours, every progress token becomes that id, and answers
 * find their way back by it. What names nobody is never guessed at.
 */
export class Multiplexer {
  readonly #options: MultiplexerOptions;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;

  constructor(options: MultiplexerOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  /**
   * Sends a request of a client; resolves with the response's text under the client's own id.
   * @throws MeshError `child_unavailable` (not written), `timeout`, `child_crashed`, `cancelled`
   */
  async call(request: RpcRequest, options: CallOptions): Promise<string> {
    const line = (id: number) => rewriteRequest(request, id);
    const response = await this.#send({ ...options, line, progressToken: progressTokenOf(request) });
    return rewriteAt(response.text, ['id'], request.idText);
  }

  /** Sends a request of our own and resolves with its result. @throws MeshError as `call`, `protocol_error` */
  async ask(method: string, params: unknown, timeoutMs: number): Promise<unknown> {
    const { value } = await this.#send({ timeoutMs, line: id => requestText(id, method, params) });
    if (!isObject(value.error)) return value.result;
    throw new MeshError('protocol_error', {
      detail: `${method}: ${String(value.error.message)}`,
      delivered: 'yes',
    });
  }

  notify(method: string, params?: unknown): void {
    this.#options.write(notificationText(method, params));
  }

  /** A line that the child wrote. */
  receive(line: string): void {
    const message = this.#parse(line);
    if (message?.kind === 'request') this.#answer(message);
    else if (message?.kind === 'notification') this.#dispatch(message);
    else if (message && typeof message.id === 'number') this.#pending.get(message.id)?.resolve(message);
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
    for (const pending of [...this.#pending.values()]) pending.reject(error);
  }

  #send({ line, timeoutMs, signal, onNotification, progressToken }: Outgoing): Promise<RpcResponse> {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      const settled = <T>(outcome: (value: T) => void) => {
        return (value: T) => {
          this.#pending.delete(id);
          clearTimeout(timer);
          signal?.removeEventListener('abort', abort);
          outcome(value);
        };
      };
      const pending: Pending = { resolve: settled(resolve), reject: settled(reject) };
      const giveUp = (code: 'timeout' | 'cancelled', reason: string) => {
        this.notify('notifications/cancelled', { requestId: id, reason });
        pending.reject(new MeshError(code, { detail: reason, delivered: 'unknown' }));
      };
      const abort = () => giveUp('cancelled', 'the client cancelled the request');
      const timer = setTimeout(() => giveUp('timeout', `no answer within ${timeoutMs} ms`), timeoutMs);
      signal?.addEventListener('abort', abort, { once: true });
      if (onNotification && progressToken !== undefined) {
        pending.onProgress = n =>
          onNotification(rewriteAt(n.text, ['params', 'progressToken'], progressToken));
      }
      this.#pending.set(id, pending);
      if (!this.#options.write(line(id)))
        pending.reject(new MeshError('child_unavailable', { delivered: 'no' }));
    });
  }

  #answer(request: RpcRequest): void {
    const head = `{"jsonrpc":"2.0","id":${request.idText}`;
    if (request.method === 'ping') {
      this.#options.write(`${head},"result":{}}`);
      return;
    }
    // We declare no client capability, so a server that asks all the same gets what a client without it answers.
    const error = {
      code: METHOD_NOT_FOUND,
      message: `${request.method} is not available to a shared server`,
    };
    this.#options.write(`${head},"error":${JSON.stringify(error)}}`);
  }

  #dispatch(notification: RpcNotification): void {
    if (notification.method !== 'notifications/progress') {
      this.#options.onNotification(notification);
      return;
    }
    const { progressToken } = notification.params;
    if (typeof progressToken === 'number') this.#pending.get(progressToken)?.onProgress?.(notification);
  }

  #parse(line: string): RpcMessage | undefined {
    try {
      return readChildMessage(line);
    } catch {
      // Servers print banners and debug output to stdout; a client is expected to skip them.
      this.#options.log.warn(
        { line: line.slice(0, 200) },
        'the server wrote a line that is no JSON-RPC message',
      );
      return undefined;
    }
  }
}

import type { OutgoingHttpHeaders } from 'node:http';
import type { FastifyReply } from 'fastify';

/** How often a comment holds an idle stream open; proxies cut a connection after 60 s of silence (Kong's default). */
export const KEEP_ALIVE_MS = 15_000;

/** Of events that the client has not read yet; one that reads no more must not fill the worker's memory. */
const UNREAD_MAX_BYTES = 8 * 1024 * 1024;

/** One Server-Sent Events answer (MCP Streamable HTTP); a stream whose client has gone swallows what it is sent. */
export interface EventStream {
  /** Sends one event; `id` lets the client resume behind it, `event` is its type. Data is of one line. */
  send(data: string, id?: string, event?: string): void;
  /** Tells the client how long to wait before it connects again, and from where (2025-11-25, resumability). */
  prime(id: string, retryMs: number): void;
  end(): void;
  readonly open: boolean;
  onClose(listener: () => void): void;
}

/** Opens the stream as the answer, with the headers that were set: status and headers leave at once. */
export function openEventStream(reply: FastifyReply): EventStream {
  const headers = reply.getHeaders() as OutgoingHttpHeaders;
  reply.hijack();
  const response = reply.raw;
  response.writeHead(200, {
    ...headers,
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
  });
  response.flushHeaders();
  // A client may be gone before its stream is opened: then 'close' does not come again.
  if (!response.destroyed) {
    const keepAlive = setInterval(() => response.write(': keep-alive\n\n'), KEEP_ALIVE_MS);
    response.on('close', () => clearInterval(keepAlive));
  }
  const write = (text: string) => {
    if (response.destroyed || !response.writable) return;
    // Looked at before the write, so that one answer of any size goes out.
    if (response.writableLength > UNREAD_MAX_BYTES) response.destroy();
    else response.write(text);
  };
  return {
    send: (data, id, event = 'message') =>
      write(`${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${data}\n\n`),
    prime: (id, retryMs) => write(`id: ${id}\nretry: ${retryMs}\ndata:\n\n`),
    end: () => response.end(),
    get open() {
      return response.writable && !response.destroyed;
    },
    onClose(listener) {
      response.once('close', listener);
    },
  };
}

import type { ServerResponse } from 'node:http';

/** How often a comment holds an idle stream open; proxies cut a connection after 60 s of silence (Kong's default). */
export const KEEP_ALIVE_MS = 15_000;

export interface EventStream {
  /** Sends one JSON-RPC message. A stream whose client has gone swallows it. */
  send(message: string): void;
  end(): void;
}

/** Opens a Server-Sent Events answer (MCP Streamable HTTP): status and headers leave at once. */
export function openEventStream(response: ServerResponse, headers: Record<string, string>): EventStream {
  response.writeHead(200, {
    ...headers,
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
  });
  response.flushHeaders();
  const keepAlive = setInterval(() => response.write(': keep-alive\n\n'), KEEP_ALIVE_MS);
  response.on('close', () => clearInterval(keepAlive));
  return {
    send(message) {
      if (response.writable) response.write(`event: message\ndata: ${message}\n\n`);
    },
    end: () => response.end(),
  };
}

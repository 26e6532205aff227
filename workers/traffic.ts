import type { Server } from 'node:http';

/** What is going on at an HTTP server, as far as stopping it is concerned. */
export interface Traffic {
  /** Answers that have not ended, streams included. */
  readonly open: number;
  /** Milliseconds since the last request of a caller came. */
  readonly quietMs: number;
}

/** Paths that are asked for ever, whether callers still come or not. */
const WATCHERS = /^\/(metrics|health|ready)\b/;

export function watchTraffic(server: Server): Traffic {
  let open = 0;
  let last = Date.now();
  server.on('request', (request, response) => {
    if (!WATCHERS.test(request.url ?? '')) last = Date.now();
    open += 1;
    response.on('close', () => {
      open -= 1;
    });
  });
  return {
    get open() {
      return open;
    },
    get quietMs() {
      return Date.now() - last;
    },
  };
}

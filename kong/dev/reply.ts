import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Exchange, Source } from './exchange.ts';
import { HeaderList } from './headers.ts';
import type { LuaTable } from './lua-value.ts';
import { headerValue } from './pdk.ts';
import type { Plugin } from './plugins.ts';
import { VIA } from './proxy.ts';
import { toJsonValue } from './serialize.ts';

const SERVER = 'kong/3.9.3';

const MESSAGES: Record<number, string> = {
  404: 'no Route matched with those values',
  500: 'An unexpected error occurred',
  502: 'An invalid response was received from the upstream server',
  503: 'The upstream server is currently unavailable',
  504: 'The upstream server is timing out',
};

/** The body of an error that Kong makes itself, always as JSON: Kong would look at Accept. */
export function kongError(status: number, requestId: string, message = MESSAGES[status]): string {
  return `{\n  "message":${JSON.stringify(message)},\n  "request_id":"${requestId}"\n}`;
}

/** Sends an answer of Kong's own through the plugins' filters. Throws what a filter throws, before the head is out. */
export function sendOwn(
  exchange: Exchange,
  plugins: readonly Plugin[],
  answer: { status: number; body: Buffer; headers: LuaTable; source: Source },
): void {
  const headers = new HeaderList();
  for (const [name, value] of Object.entries(answer.headers)) {
    if (name.toLowerCase() !== 'transfer-encoding') headers.set(name, headerValue(value));
  }
  if (headers.get('content-length') === undefined) headers.set('Content-Length', String(answer.body.length));
  headers.set('Server', SERVER);
  exchange.response = { status: answer.status, headers, source: answer.source };
  filterHeaders(exchange, plugins);
  headers.set('X-Kong-Response-Latency', String(exchange.age));
  writeHead(exchange);
  for (const chunk of [
    { data: answer.body, eof: false },
    { data: Buffer.alloc(0), eof: true },
  ]) {
    if (sendChunk(exchange, plugins, chunk)) break;
  }
}

/** The answer to kong.response.exit: text as it is, a table as JSON. */
export function sendExit(exchange: Exchange, plugins: readonly Plugin[]): void {
  const { status, body, headers } = exchange.exit ?? { status: 500, body: undefined, headers: {} };
  const isTable = typeof body === 'object' && body !== null;
  const typed = Object.keys(headers).some(name => name.toLowerCase() === 'content-type');
  sendOwn(exchange, plugins, {
    status,
    body: isTable
      ? Buffer.from(JSON.stringify(toJsonValue(body)))
      : Buffer.from(String(body ?? ''), 'latin1'),
    headers: isTable && !typed ? { ...headers, 'Content-Type': 'application/json; charset=utf-8' } : headers,
    source: 'exit',
  });
}

/** Streams an upstream's response through the filters as it comes. A response that breaks off breaks off here, too. */
export async function sendUpstream(
  exchange: Exchange,
  plugins: readonly Plugin[],
  upstream: IncomingMessage,
): Promise<void> {
  const { reply, marks } = exchange;
  const headers = new HeaderList(new HeaderList(upstream.rawHeaders).forwardable());
  exchange.response = { status: upstream.statusCode ?? 502, headers, source: 'service' };
  try {
    filterHeaders(exchange, plugins);
  } catch (error) {
    upstream.destroy();
    throw error;
  }
  headers.set('Via', VIA);
  headers.set('X-Kong-Upstream-Latency', String((marks.answered ?? 0) - (marks.proxied ?? 0)));
  headers.set('X-Kong-Proxy-Latency', String(marks.proxied ?? 0));
  writeHead(exchange);
  try {
    for await (const data of upstream) {
      if (sendChunk(exchange, plugins, { data: data as Buffer, eof: false })) return;
      if (reply.writableNeedDrain) await drained(reply);
      if (reply.destroyed) return;
    }
    sendChunk(exchange, plugins, { data: Buffer.alloc(0), eof: true });
  } catch {
    // The status is out: only the missing end can tell the client.
    reply.socket?.destroySoon();
  }
}

/** Resolves when more can be written, or nothing any more. */
function drained(reply: ServerResponse): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      reply.off('drain', done).off('close', done);
      resolve();
    };
    reply.on('drain', done).on('close', done);
    if (reply.destroyed) done();
  });
}

function filterHeaders(exchange: Exchange, plugins: readonly Plugin[]): void {
  exchange.phase = 'header_filter';
  for (const plugin of plugins) {
    exchange.plugin = plugin.name;
    plugin.header_filter?.(exchange);
  }
}

function writeHead(exchange: Exchange): void {
  const { reply, response } = exchange;
  if (response === undefined) return;
  response.headers.set('X-Kong-Request-Id', exchange.id);
  reply.writeHead(response.status, response.headers.raw());
  reply.flushHeaders();
}

/** Sends one chunk as the filters leave it; true when it was the last. */
function sendChunk(
  exchange: Exchange,
  plugins: readonly Plugin[],
  chunk: { data: Buffer; eof: boolean },
): boolean {
  exchange.phase = 'body_filter';
  exchange.chunk = chunk;
  for (const plugin of plugins) {
    exchange.plugin = plugin.name;
    plugin.body_filter?.(exchange);
  }
  const { data, eof } = exchange.chunk;
  if (data.length > 0) exchange.reply.write(data);
  if (eof) exchange.reply.end();
  return eof;
}

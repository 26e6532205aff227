import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Route, Service } from './declarative.ts';
import { HeaderList } from './headers.ts';
import type { LuaRef, LuaTable, LuaValue } from './lua-value.ts';
import { normalizePath } from './uri.ts';

export type Phase = 'access' | 'balancer' | 'header_filter' | 'body_filter' | 'log';

/** One attempt at an upstream, with the names of Kong's log. */
export interface Try {
  ip: string;
  port: number;
  balancer_start: number;
  balancer_latency: number;
  state?: 'failed';
  code?: number;
}

export interface Balancer {
  host: string;
  port: number;
  retries: number;
  /** Milliseconds: connect, between two writes, between two reads. */
  timeouts: [connect: number, write: number, read: number];
  retryCallback: LuaRef | undefined;
  /** nginx' variable: the Host header that was frozen, or '' for host:port of the try. */
  upstreamHost: string;
  path: string;
  tries: Try[];
  /** Status of each try, as nginx joins them in $upstream_status. */
  statuses: number[];
}

/** An answer that Kong makes itself; a table as body is sent as JSON. */
export interface Exit {
  status: number;
  body: LuaValue;
  headers: LuaTable;
}

export type Source = 'error' | 'exit' | 'service';

/** One request through the gateway: what Kong keeps in ngx.ctx. */
export class Exchange {
  readonly id = randomBytes(16).toString('hex');
  readonly startedAt = Date.now();
  readonly request: IncomingMessage;
  readonly reply: ServerResponse;
  readonly method: string;
  readonly rawPath: string;
  readonly path: string;
  readonly query: string;
  readonly clientIp: string;
  readonly scheme = 'http';
  readonly requestHeaders: HeaderList;
  /** The whole body once a plugin asked for it: the request to the upstream is then no longer a stream. */
  requestBody: Buffer | undefined;
  readonly service: Service;
  readonly route: Route;
  readonly balancer: Balancer;
  readonly shared: LuaRef;
  /** kong.ctx.plugin: plugin → its table. */
  readonly pluginTables = new Map<string, LuaRef>();
  phase: Phase = 'access';
  plugin = '';
  exit: Exit | undefined;
  /** A use of something that the stand-in does not have: fatal, even where the program caught the error. */
  fault: string | undefined;
  response: { status: number; headers: HeaderList; source: Source } | undefined;
  /** The part of the body that body_filter sees. */
  chunk: { data: Buffer; eof: boolean } = { data: Buffer.alloc(0), eof: false };
  readonly serializeValues: { key: string; value: LuaValue }[] = [];
  /** Milliseconds since the start: access done, upstream's headers there. */
  readonly marks: { proxied?: number; answered?: number } = {};
  requestBytes = 0;
  responseBytes = 0;

  constructor(
    request: IncomingMessage,
    reply: ServerResponse,
    service: Service,
    route: Route,
    shared: LuaRef,
  ) {
    const target = splitTarget(request);
    this.request = request;
    this.reply = reply;
    this.service = service;
    this.route = route;
    this.shared = shared;
    this.method = request.method ?? 'GET';
    this.rawPath = target.path;
    this.path = normalizePath(target.path);
    this.query = target.query;
    this.clientIp = (request.socket.remoteAddress ?? '').replace(/^::ffff:/, '');
    this.requestHeaders = new HeaderList(request.rawHeaders);
    this.balancer = {
      host: service.host,
      port: service.port,
      retries: service.retries,
      timeouts: [service.connect_timeout, service.write_timeout, service.read_timeout],
      retryCallback: undefined,
      upstreamHost: '',
      path: target.path,
      tries: [],
      statuses: [],
    };
  }

  /** Milliseconds since the request arrived. */
  get age(): number {
    return Date.now() - this.startedAt;
  }

  /** Path and query that the upstream is asked for. */
  get upstreamUri(): string {
    return this.query === '' ? this.balancer.path : `${this.balancer.path}?${this.query}`;
  }
}

/** Path and query of a request line, in origin or absolute form (RFC 9112 §3.2). */
export function splitTarget(request: IncomingMessage): { path: string; query: string } {
  const target = (request.url ?? '/').replace(/^https?:\/\/[^/?#]*/i, '');
  const mark = target.indexOf('?');
  if (mark < 0) return { path: target || '/', query: '' };
  return { path: target.slice(0, mark) || '/', query: target.slice(mark + 1) };
}

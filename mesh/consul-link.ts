import type { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import ConsulClient from 'consul';

const REQUEST_TIMEOUT_MS = 5000;

export interface ConsulAddress {
  /** http(s)://host:port */
  url: string;
  token?: string;
}

/** A request to Consul that failed. Carries no request or response: those hold the ACL token. */
export class ConsulError extends Error {
  override name = 'ConsulError';
  /** HTTP status, undefined when no answer came. */
  readonly status: number | undefined;
  constructor(message: string, status?: number) {
    super(message);
    this.status = status;
  }
}

/** The agent does not know the instance (any more): register again. */
export class NotRegistered extends ConsulError {
  override name = 'NotRegistered';
}

/** What we use of the package `consul`: its own types say Function, Record<string, string> and any. */
interface Client {
  _get(request: Request): Promise<unknown>;
  _put(request: Request): Promise<unknown>;
  _ext(event: 'onRequest', step: (request: { req: { hostname: string } }, next: () => void) => void): void;
  catalog: { service: { list(options: object): Promise<unknown> } };
  health: { service(options: object): Promise<unknown> };
  kv: Record<'get' | 'set' | 'del', (options: object) => Promise<unknown>>;
  watch(options: {
    method: WatchMethod;
    options: object;
    maxAttempts: number;
  }): EventEmitter & { end(): void };
  destroy(): void;
}

interface Request {
  path: string;
  params: Record<string, string>;
  query?: Record<string, string>;
  body?: unknown;
}

/** A blocking query: `options` carry index, wait and the context that ends it. No body for the KV store's 404. */
export type WatchMethod = (options: object) => Promise<[response: IncomingMessage, body?: unknown]>;

/** One Consul agent and everything open towards it. */
export interface Link {
  client: Client;
  url: URL;
  closed: boolean;
  watches: Set<{ close(): void }>;
}

/** Opens no connection yet. Throws TypeError on an address that is not http(s)://host:port. */
export function openLink({ url: text, token }: ConsulAddress): Link {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new TypeError(`Consul's address must be http(s)://host:port, not ${JSON.stringify(text)}`);
  }
  const options = {
    baseUrl: `${url.href.replace(/\/*$/, '')}/v1`,
    timeout: REQUEST_TIMEOUT_MS,
    ...(token === undefined ? {} : { headers: { 'x-consul-token': token } }),
  };
  const client = new ConsulClient(
    options as ConstructorParameters<typeof ConsulClient>[0],
  ) as unknown as Client;
  // The package hands http.request an IPv6 address with its brackets, which then looks up a host "[::1]".
  client._ext('onRequest', (request, next) => {
    request.req.hostname = request.req.hostname.replace(/^\[|\]$/g, '');
    next();
  });
  return { client, url, closed: false, watches: new Set() };
}

/** Ends all watches and destroys all sockets, those of requests under way included. */
export function closeLink(link: Link): void {
  link.closed = true;
  for (const watch of link.watches) watch.close();
  link.client.destroy();
}

/** Makes one request; `what` names it in the error. Throws ConsulError or NotRegistered. */
export async function ask<T>(link: Link, what: string, request: () => Promise<T>): Promise<T> {
  if (link.closed) throw new ConsulError(`cannot ${what}: this client of ${link.url.host} was closed`);
  try {
    return await request();
  } catch (error) {
    throw explain(link, `cannot ${what}`, error);
  }
}

/** Maps the package's errors to ours; any other error is a fault of ours and comes back as it is. */
export function explain(link: Link, what: string, error: unknown): Error {
  if (!(error instanceof Error)) return new ConsulError(`${what}: ${String(error)}`);
  const { isPapi, isConsul, code, response } = error as PackageError;
  if (isPapi !== true && isConsul !== true && code === undefined) return error;
  const place = `${what} at Consul ${link.url.host}`;
  if (response?.statusCode === undefined || !isFailure(response.statusCode)) {
    // A name with several addresses that all refuse gives an error without a message.
    const cause = error.message.replace(/^(consul: )?([a-z.]+: )?/, '') || code || error.name;
    return new ConsulError(`${place}: ${cause}; is an agent running there?`);
  }
  const status = response.statusCode;
  const text = `${place}: ${status} ${String(response.body ?? '')
    .trim()
    .slice(0, 300)}`.trimEnd();
  // 500 up to Consul 1.10, 404 since; a plain 404 may as well come from something in between.
  if (/unknown check|does not have associated TTL/i.test(text)) return new NotRegistered(text, status);
  return new ConsulError(status === 403 ? `${text}; check the ACL policy of Consul's token` : text, status);
}

/** For `catch`: turns "unknown service" into undefined. Consul < 1.11 says it only to some requests. */
export function ignoreUnknown(error: unknown): undefined {
  if (error instanceof ConsulError && /unknown service/i.test(error.message)) return undefined;
  throw error;
}

/** The address of our interface that routes to Consul, without the ::ffff: of a mapped IPv4 address. */
export async function localAddress(link: Link): Promise<string> {
  const { hostname, port, protocol, host } = link.url;
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect({
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port) || (protocol === 'https:' ? 443 : 80),
  });
  const watch = { close: () => socket.destroy(new ConsulError(`this client of ${host} was closed`)) };
  link.watches.add(watch);
  // Its own timer: a socket's timeout starts anew with each address that it tries.
  const timer = setTimeout(
    () => socket.destroy(new ConsulError('no connection in time')),
    REQUEST_TIMEOUT_MS,
  );
  socket.once('connect', () => resolve((socket.localAddress ?? '').replace(/^::ffff:/, '')));
  socket.once('error', reject);
  try {
    return await promise;
  } catch (error) {
    throw new ConsulError(
      `cannot find our address towards Consul ${host}: ${(error as Error).message || (error as PackageError).code}`,
    );
  } finally {
    clearTimeout(timer);
    link.watches.delete(watch);
    socket.destroy();
  }
}

type PackageError = Error & {
  isPapi?: boolean;
  isConsul?: boolean;
  code?: string;
  response?: { statusCode?: number; body?: unknown };
};

function isFailure(status: number): boolean {
  return status >= 300;
}

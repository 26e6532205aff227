import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent } from './consul/agent.ts';
import { Catalog, type Clock, DATACENTER } from './consul/catalog.ts';
import type { ReapTimes } from './consul/checks.ts';
import { toMs } from './consul/duration.ts';
import { createKv } from './consul/kv.ts';
import { Refusal, type Reply, reply } from './consul/reply.ts';

const VERSION = '1.8.7';
const DEFAULT_WAIT_MS = 300_000;
const MAX_WAIT_MS = 600_000;
/** Consul's limit for a value of the KV store. */
const MAX_BODY_BYTES = 524_288;

/**
 * A Consul agent and server in memory, with the part of Consul 1.8's HTTP interface that mcp-mesh uses; the
 * contract test runs the same cases against this and a real one. Anything else is answered 501, and said on
 * stderr. `reap` shortens Consul's own times of DeregisterCriticalServiceAfter, for tests. `knowsRedirects`: its checks
 * have the field DisableRedirects, as Consul's since 1.9.17.
 */
export async function startConsul({
  port = 0,
  host = '127.0.0.1',
  reap = { minimumMs: 60_000, intervalMs: 30_000 } as ReapTimes,
  knowsRedirects = false,
} = {}): Promise<{ url: string; close(): Promise<void> }> {
  const clock: Clock = { index: 10, waiting: new Set() };
  const server = createServer((request, response) => void serve(request, response));
  server.listen(port, host);
  await once(server, 'listening');

  const { port: bound, address } = server.address() as AddressInfo;
  const catalog = new Catalog(clock, ['0.0.0.0', '::'].includes(address) ? '127.0.0.1' : address);
  const agent = new Agent(catalog, reap, { knowsRedirects });
  const routes = createRoutes(catalog, agent, createKv(clock));

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://consul');
    try {
      const { route, rest } = findRoute(routes, request.method ?? '', url);
      const body = await readBody(request);
      const call = () => route.handle(rest, url.searchParams, body);
      send(response, route.blocks ? await block(clock, call, url.searchParams, response) : call());
    } catch (error) {
      const { status, message } =
        error instanceof Refusal ? error : new Refusal(500, (error as Error).message);
      if (status === 501) console.error(`consul stand-in: ${message}`);
      send(response, { status, body: message });
    }
  }

  return {
    url: `http://${address.includes(':') ? `[${address}]` : address}:${bound}`,
    async close() {
      agent.close();
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

interface Route {
  method: string;
  /** Below /v1; with a trailing slash any rest of the path belongs to it. */
  path: string;
  query: string[];
  blocks?: boolean;
  handle(rest: string, query: URLSearchParams, body: Buffer): Reply;
}

function createRoutes(catalog: Catalog, agent: Agent, kv: ReturnType<typeof createKv>): Route[] {
  const get = (path: string, handle: Route['handle'], query: string[] = []) => ({
    method: 'GET',
    path,
    query,
    handle,
  });
  const put = (path: string, handle: Route['handle'], query: string[] = []) => ({
    method: 'PUT',
    path,
    query,
    handle,
  });
  const blocks = true;
  const { ID: NodeID, Node: NodeName, Address: Addr } = catalog.node;
  const self = {
    Config: {
      Datacenter: DATACENTER,
      NodeName,
      NodeID,
      Revision: 'stand-in',
      Server: true,
      Version: VERSION,
    },
    Member: { Name: NodeName, Addr, Port: 8301, Tags: { dc: DATACENTER, role: 'consul' }, Status: 1 },
  };
  return [
    put('agent/service/register', (_, query, body) => agent.register(query, body), [
      'replace-existing-checks',
    ]),
    put('agent/service/deregister/', id => agent.deregister(id)),
    put('agent/service/maintenance/', (id, query) => agent.maintain(id, query), ['enable', 'reason']),
    get('agent/service/', id => agent.getService(id)),
    get('agent/services', () => agent.listServices()),
    get('agent/checks', () => agent.listChecks()),
    put('agent/check/pass/', (id, query) => agent.setStatus('passing', id, query), ['note']),
    put('agent/check/warn/', (id, query) => agent.setStatus('warning', id, query), ['note']),
    put('agent/check/fail/', (id, query) => agent.setStatus('critical', id, query), ['note']),
    put('agent/check/update/', (id, _, body) => agent.updateCheck(id, body)),
    get('agent/self', () => reply(self)),
    get('status/leader', () => reply(`${Addr}:8300`)),
    { ...get('catalog/services', () => catalog.listServices()), blocks },
    { ...get('catalog/service/', name => catalog.listInstances(name)), blocks },
    {
      ...get('health/service/', (name, query) => catalog.listHealth(name, isSet(query, 'passing')), [
        'passing',
      ]),
      blocks,
    },
    { ...get('kv/', (key, query) => kv.get(key, query), ['recurse', 'raw', 'keys']), blocks },
    put('kv/', (key, query, body) => kv.put(key, query, body), ['cas']),
    {
      method: 'DELETE',
      path: 'kv/',
      query: ['recurse', 'cas'],
      handle: (key, query) => kv.delete(key, query),
    },
  ];
}

/** `?passing`, `?passing=1`, `?passing=true`, as Go's ParseBool reads it. */
function isSet(query: URLSearchParams, name: string): boolean {
  return ['', '1', 't', 'true'].includes((query.get(name) ?? 'no').toLowerCase());
}

function findRoute(routes: Route[], method: string, url: URL): { route: Route; rest: string } {
  const path = decodeURIComponent(url.pathname).replace(/^\/v1\//, '');
  const fits = routes.filter(route =>
    route.path.endsWith('/') ? path.startsWith(route.path) : path === route.path,
  );
  const refuse = (what: string) => new Refusal(501, `this stand-in for Consul does not know ${what}`);
  if (fits.length === 0 || !url.pathname.startsWith('/v1/'))
    throw refuse(`the endpoint ${method} ${url.pathname}`);
  // agent/service/ is also the beginning of agent/service/register: the longest path is meant.
  const longest = Math.max(...fits.map(route => route.path.length));
  const route = fits.find(fit => fit.path.length === longest && fit.method === method);
  if (route === undefined) throw refuse(`the method ${method} of ${url.pathname}`);
  const known = [...route.query, ...(route.blocks ? ['index', 'wait'] : [])];
  const unknown = [...url.searchParams.keys()].find(name => !known.includes(name));
  if (unknown !== undefined) throw refuse(`the query parameter ${unknown} of ${method} ${url.pathname}`);
  return { route, rest: path.slice(route.path.length) };
}

/** A blocking query: answers when the index passes the caller's, or when the wait is over. */
async function block(
  clock: Clock,
  call: () => Reply,
  query: URLSearchParams,
  response: ServerResponse,
): Promise<Reply> {
  const [index, wait] = [query.get('index') ?? '0', query.get('wait') ?? ''];
  if (!/^\d+$/.test(index)) throw new Refusal(400, 'Invalid index');
  const waitMs = toMs(wait);
  if (Number.isNaN(waitMs)) throw new Refusal(400, 'Invalid wait time');
  let answer = call();
  if (index === '0') return answer;
  const limitMs = Math.min(waitMs || DEFAULT_WAIT_MS, MAX_WAIT_MS);
  const { promise, resolve } = Promise.withResolvers<void>();
  // Up to a sixteenth more, as Consul does against a thundering herd.
  const timer = setTimeout(resolve, limitMs + (Math.random() * limitMs) / 16);
  const wake = () => {
    answer = call();
    if ((answer.index ?? 0) > Number(index)) resolve();
  };
  clock.waiting.add(wake);
  wake();
  response.once('close', resolve);
  await promise;
  clearTimeout(timer);
  clock.waiting.delete(wake);
  return answer;
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES)
      throw new Refusal(413, `Request body too large, max size: ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function send(response: ServerResponse, { status, body, index, headers = {} }: Reply): void {
  if (response.destroyed) return;
  response.statusCode = status;
  if (index !== undefined) {
    // Never 0: a blocking query with index 0 would not block.
    response.setHeader('x-consul-index', Math.max(1, index));
    response.setHeader('x-consul-knownleader', 'true');
    response.setHeader('x-consul-lastcontact', '0');
  }
  if (body !== undefined) {
    response.setHeader('content-type', status < 300 ? 'application/json' : 'text/plain; charset=utf-8');
  }
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  const isText = body === undefined || Buffer.isBuffer(body) || status >= 300;
  response.end(isText ? (body ?? '') : JSON.stringify(body));
}

import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { META, MODERN_VERSION } from '../../../mesh/eras.ts';
import { adHocService, type Service } from '../../../mesh/registry.ts';
import { until } from '../../until.ts';
import { startTestWorker, type TestWorker } from '../helpers.ts';

export const HOSTILE = fileURLToPath(new URL('../../fixtures/servers/hostile.mjs', import.meta.url));

type ServerEnv = { ERA?: 'legacy' | 'modern'; NOISE?: string; PARAM_HEADERS?: string };

/** A service whose server is the hostile fixture; its breaker never opens unless the test says so. */
export function hostileService(env: ServerEnv = {}, overrides: Partial<Service> = {}): Service {
  return {
    ...adHocService({ name: 'hostile', command: process.execPath, args: [HOSTILE] }),
    env: { ...env },
    circuit_breaker: { failure_threshold: 1_000_000, recovery_timeout: 1 },
    ...overrides,
  };
}

/** A worker in this process whose server is ready. It stops without patience: clients of these tests leave connections open. */
export async function startReady(t: TestContext, service: Service): Promise<TestWorker> {
  const worker = await startTestWorker(t, service, { drainDeadlineMs: 100 });
  await untilReady(worker.url);
  return worker;
}

/** What a call may end in when its server was killed under it, or is not yet back. */
export const CASUALTY = new Set(['child_crashed', 'child_unavailable']);

/** For tests that draw: the seed is printed, and FC_SEED repeats a run. */
export const SEED = process.env.FC_SEED ? Number(process.env.FC_SEED) : Math.floor(Math.random() * 2 ** 31);

/** Current value of a metric, of all its series together. */
export async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const series = [...text.matchAll(new RegExp(`^mcp_mesh_worker_${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))];
  if (series.length === 0) throw new Error(`no metric ${name} in:\n${text}`);
  return series.reduce((sum, [, value]) => sum + Number(value), 0);
}

export async function untilReady(url: string): Promise<void> {
  await until(async () => {
    const response = await fetch(`${url}/health`);
    await response.text();
    return response.ok;
  });
}

export async function untilIdle(url: string): Promise<void> {
  await until(async () => (await metric(url, 'in_flight')) === 0);
}

// biome-ignore lint/suspicious/noExplicitAny: a message is whatever the test expects of it
export type Json = any;

export interface Exchange {
  status: number;
  headers: Headers;
  /** JSON-RPC messages of the body or the stream, in their order, parsed and as they were sent. */
  messages: Json[];
  texts: string[];
}

interface SendOptions {
  signal?: AbortSignal;
  /** Called with each message as it arrives. */
  onMessage?: (message: Json) => void;
}

/** POSTs one body to /mcp and reads the answer to its end. */
export async function post(
  url: string,
  body: object | string,
  headers: Record<string, string> = {},
  { signal, onMessage }: SendOptions = {},
): Promise<Exchange> {
  const response = await fetch(`${url}/mcp`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...headers,
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
  const exchange: Exchange = { status: response.status, headers: response.headers, messages: [], texts: [] };
  const take = (text: string) => {
    const message = JSON.parse(text) as Json;
    exchange.texts.push(text);
    exchange.messages.push(message);
    onMessage?.(message);
  };
  if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
    await readEvents(response, take);
  } else {
    const text = await response.text();
    if (text !== '') take(text);
  }
  return exchange;
}

/** Opens the standing stream of a legacy session; resolves once its headers are here. */
export async function openGet(
  client: LegacyClient,
  onMessage: (message: Json) => void,
): Promise<{ close(): void }> {
  const closing = new AbortController();
  const response = await fetch(`${client.url}/mcp`, {
    headers: { accept: 'text/event-stream', ...client.headers },
    signal: closing.signal,
  });
  if (!response.ok) throw new Error(`GET answers ${response.status}: ${await response.text()}`);
  readEvents(response, text => onMessage(JSON.parse(text))).catch(() => {});
  return { close: () => closing.abort() };
}

/** Data of each event that has any, by the standard's own line rules: CR, LF and CRLF all end a line (HTML §9.2.6). */
async function readEvents(response: Response, onData: (data: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  // Held as pieces: an event of megabytes arrives in many reads.
  let pieces: string[] = [];
  const flush = (end: boolean) => {
    const text = pieces.join('');
    const events = text.split(/\r\n\r\n|\n\n|\r\r|\r\n\n|\n\r\n/);
    pieces = end ? [] : [events.pop() ?? ''];
    for (const event of events) {
      const data = event
        .split(/\r\n|\r|\n/)
        .filter(line => line.startsWith('data:'))
        .map(line => line.slice(5).replace(/^ /, ''));
      if (data.some(line => line !== '')) onData(data.join('\n'));
    }
  };
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    const text = decoder.decode(chunk, { stream: true });
    pieces.push(text);
    if (/[\r\n]$/.test(text)) flush(false);
  }
  flush(true);
}

type Id = number | string;

/** A client of either era that speaks to one worker. */
export interface Client {
  era: 'legacy' | 'modern';
  url: string;
  request(id: Id, method: string, params?: object, options?: CallOptions): Promise<Exchange>;
  /** `tools/call`. */
  call(id: Id, tool: string, args?: object, options?: CallOptions): Promise<Exchange>;
}

export interface LegacyClient extends Client {
  headers: Record<string, string>;
  notify(method: string, params?: object): Promise<Exchange>;
  /** POSTs any message of the session. */
  send(message: object | string): Promise<Exchange>;
}

interface CallOptions extends SendOptions {
  /** Further members of `_meta`. */
  meta?: Record<string, unknown>;
  headers?: Record<string, string>;
}

/** Initializes a session. */
export async function connectLegacy(
  url: string,
  { version = '2025-11-25', capabilities = {} }: { version?: string; capabilities?: object } = {},
): Promise<LegacyClient> {
  const params = {
    protocolVersion: version,
    capabilities,
    clientInfo: { name: 'hostile-test', version: '1' },
  };
  const { headers: got, messages } = await post(url, { jsonrpc: '2.0', id: 0, method: 'initialize', params });
  const session = got.get('mcp-session-id');
  if (session === null) throw new Error(`no session: ${JSON.stringify(messages)}`);
  const headers = { 'mcp-session-id': session, 'mcp-protocol-version': version };
  const send = (message: object | string, options: CallOptions = {}) =>
    post(url, message, { ...headers, ...options.headers }, options);
  const request: Client['request'] = (id, method, params = {}, options = {}) => {
    const meta = options.meta ? { _meta: options.meta } : {};
    return send({ jsonrpc: '2.0', id, method, params: { ...params, ...meta } }, options);
  };
  await send({ jsonrpc: '2.0', method: 'notifications/initialized' });
  return {
    era: 'legacy',
    url,
    headers,
    send,
    request,
    call: (id, name, args = {}, options) => request(id, 'tools/call', { name, arguments: args }, options),
    notify: (method, params = {}) => send({ jsonrpc: '2.0', method, params }),
  };
}

export const MODERN_META = {
  [META.protocolVersion]: MODERN_VERSION,
  [META.clientCapabilities]: {},
  [META.clientInfo]: { name: 'hostile-test', version: '1' },
};

/** Headers of a modern request. */
export function modernHeaders(method: string, name?: string): Record<string, string> {
  return {
    'mcp-protocol-version': MODERN_VERSION,
    'mcp-method': method,
    ...(name === undefined ? {} : { 'mcp-name': name }),
  };
}

export function connectModern(url: string, capabilities: object = {}): Client {
  const request: Client['request'] = (id, method, params = {}, options = {}) => {
    const { name, uri } = params as { name?: string; uri?: string };
    const _meta = { ...MODERN_META, [META.clientCapabilities]: capabilities, ...options.meta };
    const body = { jsonrpc: '2.0', id, method, params: { ...params, _meta } };
    return post(url, body, { ...modernHeaders(method, name ?? uri), ...options.headers }, options);
  };
  return {
    era: 'modern',
    url,
    request,
    call: (id, name, args = {}, options) => request(id, 'tools/call', { name, arguments: args }, options),
  };
}

/** Clients of each era, one of the one after one of the other. */
export async function clientsOf(url: string, ofEach = 1): Promise<Client[]> {
  const pairs = Array.from({ length: ofEach }, async () => [await connectLegacy(url), connectModern(url)]);
  return (await Promise.all(pairs)).flat();
}

/** Kills a server that no kill before has met: two that overlap on a slow machine are told the same pid. */
export async function killServer(url: string, killed: Set<number>): Promise<void> {
  for (;;) {
    await untilReady(url);
    const answer = await connectModern(url).call(0, 'pid');
    // Just then it may have died of the kill before.
    if (!answer.messages[0].result) continue;
    const pid = Number(textOf(answer));
    if (killed.has(pid)) continue;
    killed.add(pid);
    process.kill(pid, 'SIGKILL');
    return;
  }
}

/** The text of a tool's answer; throws when the last message is none. */
export function textOf(exchange: Exchange): string {
  const last = exchange.messages.at(-1);
  const text = last?.result?.content?.[0]?.text;
  if (typeof text !== 'string') throw new Error(`no text in ${JSON.stringify(last)?.slice(0, 500)}`);
  return text;
}

/** Whether a request says that it is of the modern era, in its headers or by its body. */
export function isModernAsked({
  headers = {},
  body,
}: {
  headers?: Record<string, string>;
  body?: unknown;
}): boolean {
  const claim = (body as { params?: { _meta?: object } } | undefined)?.params?._meta;
  return (
    headers['mcp-protocol-version'] === MODERN_VERSION ||
    (claim !== undefined && META.protocolVersion in claim)
  );
}

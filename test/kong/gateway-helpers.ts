import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  request,
  type ServerResponse,
} from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Gateway, type GatewayOptions, startGateway } from '../../kong/dev/gateway.ts';
import { until } from '../until.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Anything that runs clean-ups: a test context, or the file's own `after`. */
export type After = (cleanUp: () => unknown) => void;

/** A record of kong.log.serialize, as far as tests look at it. */
export interface LogRecord {
  request: { headers: Record<string, unknown>; method: string; uri: string; size: number };
  response: { status: number; headers: Record<string, unknown>; size: number };
  upstream_uri: string;
  upstream_status: string;
  tries: { ip: string; port: number; state?: string; code?: number }[];
  latencies: { proxy: number };
  source: string;
  client_ip: string;
  mesh?: { record?: unknown; load?: unknown };
  [key: string]: unknown;
}

export interface TestGateway {
  gateway: Gateway;
  /** What the gateway logged: `level message`. */
  lines: string[];
  /** The log record of the request that had this `x-tag`. */
  record(tag: string): Promise<LogRecord>;
}

export const PLUGIN_SERVER = [
  process.execPath,
  join(ROOT, 'kong-plugin/server.cjs'),
  '--plugins-directory',
  join(ROOT, 'test/fixtures/plugins'),
];

export const KONG_YML = join(ROOT, 'kong/kong.yml');

/** The gateway stand-in with the fixture plugin. */
export async function startTestGateway(
  after: After,
  options: Partial<Omit<GatewayOptions, 'log'>> & { env?: Record<string, string> } = {},
): Promise<TestGateway> {
  const folder = await mkdtemp(join(tmpdir(), 'gateway-test-'));
  const logFile = join(folder, 'log.jsonl');
  writeFileSync(logFile, '');
  after(() => rmSync(folder, { recursive: true }));
  const lines: string[] = [];
  const gateway = await startGateway({
    configPath: KONG_YML,
    ...options,
    pluginServer: { command: PLUGIN_SERVER, env: { MESH_TEST_LOG: logFile, ...options.env } },
    log: (level, message) => lines.push(`${level} ${message}`),
  });
  after(() => gateway.close());
  const record = (tag: string): Promise<LogRecord> =>
    until(`a log record of ${tag}`, () =>
      readFileSync(logFile, 'utf8')
        .split('\n')
        .filter(line => line !== '')
        .map(line => JSON.parse(line) as LogRecord)
        .find(entry => entry.request.headers['x-tag'] === tag),
    );
  return { gateway, lines, record };
}

/** A kong.yml of the test's own: one service, one route on `/`, the given Lua. */
export async function writeKongYml(
  after: After,
  lua: { access?: string; header_filter?: string; body_filter?: string },
  service: Record<string, unknown> = {},
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gateway-test-'));
  after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'kong.yml');
  const config = Object.fromEntries(Object.entries(lua).map(([phase, chunk]) => [phase, [chunk]]));
  const flags = { strip_path: false, request_buffering: false, response_buffering: false };
  const services = [
    {
      name: 'test',
      host: 'localhost',
      port: 9,
      ...service,
      routes: [{ name: 'all', paths: ['/'], ...flags }],
      plugins: [{ name: 'pre-function', config }],
    },
  ];
  writeFileSync(file, JSON.stringify({ _format_version: '3.0', services }));
  return file;
}

/** An upstream on a free port. */
export async function startWorker(after: After, answer: RequestListener): Promise<number> {
  const server = createServer(answer);
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  after(() => {
    server.close();
    server.closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

/** An upstream that does with a connection what `serve` says, below HTTP. */
export async function startTcpWorker(after: After, serve: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createTcpServer(socket => {
    sockets.add(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return (server.address() as AddressInfo).port;
}

/** A port of 127.0.0.1 that nothing listens on. */
export async function closedPort(): Promise<number> {
  const cleanUps: (() => unknown)[] = [];
  const port = await startTcpWorker(
    cleanUp => cleanUps.push(cleanUp),
    () => {},
  );
  for (const cleanUp of cleanUps) await cleanUp();
  return port;
}

export interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  rawHeaders: string[];
  text: string;
  /** The body ended as its framing says. */
  complete: boolean;
}

export interface Send {
  method?: string;
  path?: string;
  /** A list of values sends one line each. */
  headers?: Record<string, string | string[]>;
  body?: string | Buffer;
}

/** One request on a connection of its own, with its whole answer. */
export async function send(gateway: { port: number }, options: Send = {}): Promise<Answer> {
  const response = await open(gateway, options);
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of response) chunks.push(chunk as Buffer);
  } catch {
    // `complete` tells.
  }
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    rawHeaders: response.rawHeaders,
    text: Buffer.concat(chunks).toString(),
    complete: response.complete,
  };
}

/** One request whose answer is read by the test as it streams. */
export function open(gateway: { port: number }, options: Send = {}): Promise<IncomingMessage> {
  const { method = 'GET', path = '/api/v1/mcp/test', headers = {}, body } = options;
  return new Promise((resolve, reject) => {
    const call = request(
      { host: '127.0.0.1', port: gateway.port, method, path, headers, agent: false },
      resolve,
    );
    call.on('error', reject);
    call.end(body);
  });
}

/** The request header that makes the fixture plugin decide so. */
export function decide(decision: unknown): Record<string, string> {
  return script({ decision });
}

/** The header that scripts the fixture plugin; ASCII only, since header bytes are no UTF-8 for node:http. */
export function script(steps: Record<string, unknown>): Record<string, string> {
  const ascii = JSON.stringify(steps).replace(
    /[\u0080-\uffff]/g,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return { 'x-test': ascii };
}

/** A route decision as the plugin makes it. */
export function routeTo(ports: number[], more: Record<string, unknown> = {}): Record<string, string> {
  return decide({
    targets: ports.map(port => ['127.0.0.1', port]),
    path: '/mcp',
    headers: {},
    record: { targets: ports },
    failure: { type: 'application/problem+json', lost: '{"code":"worker_lost"}', late: '{"code":"timeout"}' },
    ...more,
  });
}

/** The request as the worker got it, as JSON. */
export function echo(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request.on('data', chunk => chunks.push(chunk));
  request.on('end', () => {
    const { method, url, headers, rawHeaders } = request;
    const body = Buffer.concat(chunks).toString();
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ method, url, headers, rawHeaders, body }));
  });
}

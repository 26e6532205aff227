import { Agent, type IncomingHttpHeaders, request } from 'node:http';
import { META, MODERN_VERSION } from '../../mesh/eras.ts';
import { isObject } from '../../mesh/jsonrpc.ts';
import { INITIALIZE } from '../workers/helpers.ts';

/** The way in: plain REST, an MCP session of 2025-11-25, MCP of 2026-07-28. */
export type Via = 'rest' | 'legacy' | 'modern';

/** One call as its caller saw it. */
export interface CallRecord {
  /** The caller's own, sent as x-request-id and to the server. */
  id: string;
  via: Via;
  /** Milliseconds of performance.now(). */
  startedAt: number;
  endedAt: number;
  /** HTTP status; 0 when the connection to the gateway gave none. */
  status: number;
  /** The server's answer is the one to this call. */
  ok: boolean;
  /** Of the catalogue's error, when it is one: problem details or the JSON-RPC error's data. */
  error: { code?: string; delivered?: string; call_id?: string };
  contentType: string;
  text: string;
}

export interface CallTarget {
  /** Base URL of a gateway. */
  url: string;
  service: string;
}

export interface LoadOptions {
  /** Base URLs of the gateways, which the calls go to in turn. */
  urls: readonly string[];
  service: string;
  /** Calls under way at any time. */
  inFlight: number;
  /** Shortest and longest time that the server takes for a call. */
  serverMs: readonly [number, number];
  via?: readonly Via[];
}

export interface Load {
  /** Calls that have ended, in the order of their ends. */
  readonly ended: readonly CallRecord[];
  /** Sends no more and resolves with all calls when the last has ended. */
  stop(): Promise<CallRecord[]>;
}

interface Prepared {
  path: string;
  body: string;
  headers: Record<string, string>;
}

interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/** A caller's patience: longer than any time-out of the mesh that is tested with it. */
const PATIENCE_MS = 90_000;
const SESSIONS = 3;

let calls = 0;

/** Keeps a number of calls of the fixture's tool `mark` under way until stopped. */
export async function startLoad(options: LoadOptions): Promise<Load> {
  const { urls, service, inFlight, serverMs, via = ['rest', 'modern', 'legacy'] } = options;
  const agent = new Agent({ keepAlive: true, maxSockets: inFlight * 2 });
  const target = (turn: number): CallTarget => ({ url: urls[turn % urls.length] ?? '', service });
  const sessions = via.includes('legacy')
    ? await Promise.all(Array.from({ length: SESSIONS }, (_, i) => openSession(target(i), agent)))
    : [];
  const ended: CallRecord[] = [];
  let stopped = false;
  let turn = 0;

  const caller = async () => {
    while (!stopped) {
      turn += 1;
      const [shortest, longest] = serverMs;
      const ms = shortest + Math.random() * (longest - shortest);
      const session = sessions[turn % SESSIONS];
      ended.push(await callMark(target(turn), { via: via[turn % via.length] ?? 'rest', ms, agent, session }));
    }
  };
  const callers = Array.from({ length: inFlight }, caller);

  return {
    ended,
    async stop() {
      stopped = true;
      await Promise.all(callers);
      agent.destroy();
      return ended;
    },
  };
}

/** Calls the fixture's tool `mark`, which writes the call's id down and answers with it after `ms`. */
export async function callMark(
  { url, service }: CallTarget,
  options: { via?: Via; ms?: number; agent?: Agent; session?: string | undefined } = {},
): Promise<CallRecord> {
  const { via = 'rest', ms = 0, agent = new Agent(), session = '' } = options;
  calls += 1;
  const id = `call-${process.pid}-${calls}`;
  const prepared = prepare(via, { id, ms: Math.round(ms) }, session);
  const startedAt = performance.now();
  const reply = await post(`${url}/api/v1/mcp/${service}${prepared.path}`, prepared, agent, id);
  const { status, text, headers } = reply;
  const contentType = String(headers['content-type'] ?? '');
  const json = readJson(contentType === 'text/event-stream' ? lastEvent(text) : text);
  const result = via === 'rest' ? json : json.result;
  return {
    id,
    via,
    startedAt,
    endedAt: performance.now(),
    status,
    ok: status === 200 && textOf(result) === id,
    error: errorOf(json),
    contentType,
    text,
  };
}

async function openSession({ url, service }: CallTarget, agent: Agent): Promise<string> {
  const prepared = { path: '', body: JSON.stringify(INITIALIZE), headers: {} };
  const { status, headers, text } = await post(
    `${url}/api/v1/mcp/${service}`,
    prepared,
    agent,
    'load-session',
  );
  const session = headers['mcp-session-id'];
  if (status !== 200 || typeof session !== 'string') throw new Error(`no session: ${status} ${text}`);
  return session;
}

function prepare(via: Via, args: { id: string; ms: number }, session: string): Prepared {
  if (via === 'rest') {
    return { path: '/execute', body: JSON.stringify({ command: 'mark', params: args }), headers: {} };
  }
  const params = { name: 'mark', arguments: args };
  const message = (more: object = {}) =>
    JSON.stringify({ jsonrpc: '2.0', id: args.id, method: 'tools/call', params: { ...params, ...more } });
  if (via === 'legacy') return { path: '', body: message(), headers: { 'mcp-session-id': session } };
  const _meta = {
    [META.protocolVersion]: MODERN_VERSION,
    [META.clientCapabilities]: {},
    [META.clientInfo]: { name: 'load', version: '1' },
  };
  const headers = {
    'mcp-protocol-version': MODERN_VERSION,
    'mcp-method': 'tools/call',
    'mcp-name': 'mark',
  };
  return { path: '', body: message({ _meta }), headers };
}

/** Never rejects: a connection that breaks is status 0 with the reason as text. */
function post(url: string, { body, headers }: Prepared, agent: Agent, id: string): Promise<Reply> {
  return new Promise(resolve => {
    const fail = (error: Error) => resolve({ status: 0, headers: {}, text: error.message });
    const call = request(url, {
      method: 'POST',
      agent,
      headers: {
        ...headers,
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'content-length': Buffer.byteLength(body),
        'x-request-id': id,
      },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    call.once('error', fail);
    call.once('response', async response => {
      const chunks: Buffer[] = [];
      try {
        for await (const chunk of response) chunks.push(chunk as Buffer);
        const text = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text });
      } catch (error) {
        fail(error as Error);
      }
    });
    call.end(body);
  });
}

/** An answer that took long comes as a stream (MCP, Streamable HTTP): the last event's data is the answer. */
function lastEvent(text: string): string {
  return [...text.matchAll(/^data: (.+)$/gm)].at(-1)?.[1] ?? '';
}

function readJson(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

function textOf(result: unknown): unknown {
  const content = isObject(result) && Array.isArray(result.content) ? result.content : [];
  return content[0]?.text;
}

function errorOf(json: Record<string, unknown>): CallRecord['error'] {
  const data = isObject(json.error) ? json.error.data : json;
  const { code, delivered, call_id } = isObject(data) ? data : {};
  return {
    ...(typeof code === 'string' ? { code } : {}),
    ...(typeof delivered === 'string' ? { delivered } : {}),
    ...(typeof call_id === 'string' ? { call_id } : {}),
  };
}

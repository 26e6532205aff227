import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { adHocService, type Service } from '../../mesh/registry.ts';
import { type WorkerSettings, workerSettings } from '../../mesh/settings.ts';
import { startWorker } from '../../workers/worker.ts';

export const SCRIPTED = fileURLToPath(new URL('../fixtures/servers/scripted.mjs', import.meta.url));

export const silentLog = pino({ level: 'silent' });

/** A service whose server is the scripted fixture. */
export function scriptedService(mode = '', overrides: Partial<Service> = {}): Service {
  return {
    ...adHocService({ name: 'scripted', command: process.execPath, args: [SCRIPTED] }),
    env: { MODE: mode },
    ...overrides,
  };
}

export interface TestWorker {
  url: string;
  stop(): Promise<void>;
  /** POSTs JSON text; the answer's body is parsed when it is JSON. */
  post(path: string, body: string | object, headers?: Record<string, string>): Promise<Answer>;
  /** Initializes and returns a function that posts with the session's headers. */
  connect(): Promise<(body: object, headers?: Record<string, string>) => Promise<Answer>>;
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: an answer is whatever the test expects of it
  json: any;
}

/** A worker in this process on a free port; stopped when the test ends. */
export async function startTestWorker(
  t: TestContext,
  service: Service,
  settings: Partial<WorkerSettings> = {},
): Promise<TestWorker> {
  const worker = await startWorker({
    service,
    settings: { ...workerSettings({}), drainIdleMs: 0, drainDeadlineMs: 2000, ...settings },
    log: silentLog,
    register: settings.consul !== undefined,
  });
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= worker.stop();
    return stopped;
  };
  t.after(stop);
  const url = `http://127.0.0.1:${worker.port}`;
  const post: TestWorker['post'] = async (path, body, headers = {}) => {
    const response = await fetch(`${url}${path}`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        ...headers,
      },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
    return readAnswer(response);
  };
  return { url, stop, post, connect: () => connect(post) };
}

export async function readAnswer(response: Response): Promise<Answer> {
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.includes('json') ?? false;
  return {
    status: response.status,
    headers: response.headers,
    text,
    json: isJson ? JSON.parse(text) : undefined,
  };
}

export const INITIALIZE = {
  jsonrpc: '2.0',
  id: 0,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '0' } },
};

/** A `tools/call` request. */
export function toolCall(id: number | string, name: string, args: object = {}, meta?: object): object {
  const params = { name, arguments: args, ...(meta ? { _meta: meta } : {}) };
  return { jsonrpc: '2.0', id, method: 'tools/call', params };
}

/** Waits until the worker's server is ready. */
export async function ready(worker: TestWorker): Promise<void> {
  for (;;) {
    const response = await fetch(`${worker.url}/health`);
    await response.text();
    if (response.ok) return;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

async function connect(post: TestWorker['post']) {
  const answer = await post('/mcp', INITIALIZE);
  const session = answer.headers.get('mcp-session-id') ?? '';
  return (body: object, headers: Record<string, string> = {}) =>
    post('/mcp', body, { 'mcp-session-id': session, ...headers });
}

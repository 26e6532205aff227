import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import {
  type Consul,
  createConsul,
  type Instance,
  type Registration,
  type Watch,
} from '../../mesh/consul.ts';

/** Only a limit for a test that hangs; nothing is measured with it. */
const PATIENCE_MS = 15_000;

export interface Sight<T> {
  /** All values so far, oldest first. */
  values: T[];
  errors: Error[];
  watch: Watch;
  /** The first value from now on, the latest included, that fits. */
  until(fits: (value: T) => boolean): Promise<T>;
  untilError(): Promise<Error>;
}

export function openConsul(t: TestContext, url: string): Consul {
  const consul = createConsul({ url });
  t.after(() => consul.close());
  return consul;
}

/** Collects what a watch reports. */
export function look<T>(
  start: (onChange: (value: T) => void, onError: (error: Error) => void) => Watch,
): Sight<T> {
  const values: T[] = [];
  const errors: Error[] = [];
  const waiting = new Set<() => void>();
  const wake = () => {
    for (const check of waiting) check();
  };
  const watch = start(
    value => {
      values.push(value);
      wake();
    },
    error => {
      errors.push(error);
      wake();
    },
  );
  async function eventually<R>(read: () => R | undefined, describe: () => string): Promise<R> {
    const { promise, resolve, reject } = Promise.withResolvers<R>();
    const check = () => {
      const value = read();
      if (value !== undefined) resolve(value);
    };
    const timer = setTimeout(() => reject(new Error(describe())), PATIENCE_MS);
    waiting.add(check);
    check();
    return await promise.finally(() => {
      clearTimeout(timer);
      waiting.delete(check);
    });
  }
  return {
    values,
    errors,
    watch,
    until: fits =>
      eventually(
        () => (values.length > 0 && fits(values.at(-1) as T) ? (values.at(-1) as T) : undefined),
        () => `never seen; last: ${JSON.stringify(values.at(-1))}, errors: ${errors.map(String).join(', ')}`,
      ),
    untilError: () => {
      const seen = errors.length;
      return eventually(
        () => errors[seen],
        () => 'no error was reported',
      );
    },
  };
}

export function lookAtInstances(consul: Consul, service: string): Sight<Instance[]> {
  return look((onChange, onError) => consul.watchInstances(service, onChange, onError));
}

/** A registration whose health URL refuses connections unless given. */
export function registrationOf(
  name: string,
  changes: Partial<Registration> & { healthUrl?: string } = {},
): Registration {
  const { healthUrl = 'http://127.0.0.1:1/health', ...rest } = changes;
  return {
    id: `${name}-1`,
    name,
    address: '127.0.0.1',
    port: 11_100,
    tags: ['mcp', 'test'],
    meta: { mcp_server: name, version: '1.2.3' },
    weights: { passing: 100, warning: 10 },
    ttlSeconds: 60,
    deregisterAfterSeconds: 600,
    health: { url: healthUrl, intervalSeconds: 1, timeoutSeconds: 1 },
    ...rest,
  };
}

/** Starts an HTTP server on a free port of 127.0.0.1, closed with the test. */
export async function startServer(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A worker's /health that answers as told. */
export async function startHealth(t: TestContext, status: number, body: string): Promise<string> {
  const url = await startServer(t, (_, response) => response.writeHead(status).end(body));
  return `${url}/health`;
}

export interface Answer {
  status: number;
  index: number;
  text: string;
  // Consul's JSON, read where each test says what it expects.
  json: () => unknown;
}

/** One plain request to Consul, below /v1. */
export async function request(
  url: string,
  path: string,
  init: { method?: string; body?: string } = {},
): Promise<Answer> {
  const response = await fetch(`${url}/v1/${path}`, { ...init, signal: AbortSignal.timeout(PATIENCE_MS) });
  const text = await response.text();
  const index = Number(response.headers.get('x-consul-index'));
  return { status: response.status, index, text, json: () => JSON.parse(text) };
}

export function put(url: string, path: string, body?: unknown): Promise<Answer> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return request(url, path, { method: 'PUT', ...(body === undefined ? {} : { body: text }) });
}

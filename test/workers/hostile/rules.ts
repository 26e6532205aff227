import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import type { TestContext } from 'node:test';
import { hostileService, isModernAsked, type Json, startReady } from './helpers.ts';

/** One rule of a transport that has a status code: what is asked, and the status and JSON-RPC error code of the answer. */
export type Rule = [name: string, asked: Asked, status: number, code?: number, more?: Expected];

export interface Asked {
  method?: string;
  headers?: Headers;
  /** Headers that are not sent at all. */
  without?: string[];
  /** An object is sent as JSON, a string or bytes as they are. */
  body?: object | string | Buffer;
}

interface Expected {
  /** By default the request's own in an answer, and in every error to a modern client. */
  id?: unknown;
  data?: object;
}

export type Headers = Record<string, string>;

const JSON_HEADERS: Headers = {
  'content-type': 'application/json',
  accept: 'application/json, text/event-stream',
};

/** Largest request body of the worker that the rules are tested on. */
export const BODY_MAX = 200_000;

export function message(method: string, params: object = {}, id: unknown = 5): object {
  return { jsonrpc: '2.0', id, method, params };
}

export function notification(method: string, params: object = {}): object {
  return { jsonrpc: '2.0', method, params };
}

export function initialize(protocolVersion: string): object {
  return message('initialize', {
    protocolVersion,
    capabilities: {},
    clientInfo: { name: 'x', version: '1' },
  });
}

/** URL of a worker with the limits that the rules speak of. */
export async function startRuled(t: TestContext, ERA: 'legacy' | 'modern'): Promise<string> {
  const service = hostileService({ ERA, PARAM_HEADERS: '1' });
  const limits = { ...service.limits, request_bytes: BODY_MAX };
  return (await startReady(t, { ...service, limits })).url;
}

/** Asks, and asserts that the answer is as the rule says. */
export async function check(url: string, asked: Asked, ...[status, code, more]: Tail<Rule>): Promise<void> {
  const answer = await send(url, asked);
  const shown = `${answer.status} ${answer.text.slice(0, 1000)}`;
  assert.equal(answer.status, status, shown);
  const modern = isModernAsked(asked);
  if (modern) assert.equal(answer.headers['mcp-session-id'], undefined, 'no session for a modern client');
  if (status === 202 || status === 204) {
    assert.equal(answer.text, '');
    return;
  }
  const got = messageOf(answer.text, String(answer.headers['content-type']));
  assert.equal(got.jsonrpc, '2.0', shown);
  assert.equal(got.error?.code, code, shown);
  const id = more && 'id' in more ? more.id : (asked.body as { id?: unknown } | undefined)?.id;
  if (id !== undefined && (status === 200 || modern || more)) assert.equal(got.id, id, shown);
  if (more?.data) assert.deepEqual(got.error.data, more.data, shown);
}

type Tail<T extends unknown[]> = T extends [unknown, unknown, ...infer Rest] ? Rest : never;

interface Answer {
  status: number;
  headers: NodeJS.Dict<string | string[]>;
  text: string;
}

/** By node:http, which sends any header, Host included, as it is told. */
export function send(
  url: string,
  { method = 'POST', headers = {}, without = [], body }: Asked,
): Promise<Answer> {
  const { hostname, port } = new URL(url);
  const bytes =
    body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  const all: Headers = { ...(bytes === undefined ? {} : JSON_HEADERS), ...headers };
  for (const name of without) delete all[name];
  return new Promise((resolve, reject) => {
    const options = { hostname, port, path: '/mcp', method, headers: all, agent: false };
    const request = httpRequest(options, response => {
      let text = '';
      response.setEncoding('utf8').on('data', chunk => {
        text += chunk;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
      );
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(bytes);
  });
}

/** The message of a JSON body, or the last one of a stream. */
function messageOf(text: string, type: string): Json {
  if (!type.startsWith('text/event-stream')) return JSON.parse(text);
  return JSON.parse(
    text
      .match(/^data: (.+)$/gm)
      ?.at(-1)
      ?.slice(6) ?? 'null',
  );
}

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { startConsul } from '../../kong/dev/consul.ts';
import { workerSettings } from '../../mesh/settings.ts';
import { startWorker, type Worker } from '../../workers/worker.ts';
import { startGateways, type TestGateways } from '../security/gateways.ts';
import { makeKeys, newApiKey, workerKeys } from '../security/keys.ts';
import { until } from '../until.ts';
import { type Answer, readAnswer, silentLog } from '../workers/helpers.ts';
import { listedService } from '../workers/listed.ts';
import { collectCleanUps } from './fleet-harness.ts';

/** What a curl user sees of a service whose role opens some of its tools. */

const BASE = '/api/v1/mcp/listed';
const SUM = {
  type: 'object',
  properties: { a: { $ref: '#/$defs/n' } },
  required: ['a'],
  $defs: { n: { type: 'number' } },
};
const TOOLS = [
  { name: 'get-sum', inputSchema: SUM },
  { name: 'get/it', inputSchema: { type: 'object' } },
  { name: 'put-it', inputSchema: { type: 'object' } },
  { name: 'tell', inputSchema: { type: 'object' } },
];
const keys = makeKeys();
const holder = newApiKey();
const policy = {
  api_keys: [{ id: 'some', hash: holder.hash, roles: ['some'] }],
  roles: { some: { allow: [{ service: 'listed', tools: ['get*', 'tell'] }] } },
};
const cleanUps = collectCleanUps();
let mesh: TestGateways;
let worker: Worker;

before(async () => {
  const consul = await startConsul();
  cleanUps.add(consul.close);
  worker = await startWorker({
    service: listedService(TOOLS, { PAGE: '1' }, { validate_arguments: true }),
    settings: {
      ...workerSettings({}),
      ...workerKeys(keys, 'listed'),
      consul: { url: consul.url },
      drainIdleMs: 0,
      drainDeadlineMs: 100,
    },
    log: silentLog,
    register: true,
  });
  cleanUps.add(() => worker.stop());
  mesh = await startGateways(cleanUps.add, { consulUrl: consul.url, keys, policy });
  await until('healthy worker', async () => {
    const { json } = await curl(`${BASE}/status`);
    return json.healthy === 1;
  });
});
after(() => cleanUps.run());

describe('openapi.json', () => {
  test('is valid, has the tools of the caller and leads to them', async () => {
    const url = `${mesh.url}${BASE}/openapi.json`;
    const { status, json: document } = await curl(`${BASE}/openapi.json`);
    const { valid, errors } = await new Validator().validate(structuredClone(document));
    assert.ok(status === 200 && valid, JSON.stringify(errors));
    assert.deepEqual(Object.keys(document.paths), ['/tools/get-sum', '/tools/get%2Fit', '/tools/tell']);
    for (const path of Object.keys(document.paths)) {
      // As a client does: the path behind the server's URL, which is relative to the document's.
      const server = new URL(document.servers[0].url, url).href;
      const { status, text } = await curl(new URL(`${server}${path}`).pathname, '{"a":1}');
      assert.equal(status, 200, text);
    }
  });

  test('takes what the caller sends to prove himself, as it says', async () => {
    const { json: document } = await curl(`${BASE}/openapi.json`);
    const { apiKey, bearer } = document.components.securitySchemes;
    for (const headers of [
      { [apiKey.name]: holder.key },
      { authorization: `${bearer.scheme} ${holder.key}` },
    ]) {
      assert.equal((await curl(`${BASE}/tools/get-sum`, '{"a":1}', headers)).status, 200);
    }
    assert.equal((await curl(`${BASE}/openapi.json`, undefined, {})).status, 401);
  });
});

test('what is not listed cannot be called, and a path that is none names those that are', async () => {
  const refused = await curl(`${BASE}/tools/put-it`, '{}');
  assert.deepEqual([refused.status, refused.json.code], [403, 'forbidden']);
  const missed = await curl(`${BASE}/openapi.yaml`);
  assert.deepEqual([missed.status, missed.json.code], [404, 'unknown_path']);
  assert.match(missed.json.detail, /\/openapi\.json/);
});

test('a list goes on behind its cursor, and HEAD asks for it without reading', async () => {
  const first = await curl(`${BASE}/tools`);
  assert.deepEqual([first.json.tools[0].name, first.json.nextCursor], ['get-sum', '1']);
  const second = await curl(`${BASE}/tools?cursor=${first.json.nextCursor}`);
  assert.deepEqual([second.json.tools[0].name, second.json.nextCursor], ['get/it', '2']);
  const twice = await curl(`${BASE}/tools?cursor=1&cursor=2`);
  assert.deepEqual([twice.status, twice.json.code], [400, 'invalid_request']);
  const head = await fetch(`${mesh.url}${BASE}/tools`, {
    method: 'HEAD',
    headers: { 'x-api-key': holder.key },
  });
  assert.deepEqual([head.status, await head.text()], [200, '']);
});

test('arguments that do not fit are told by their place', async () => {
  const { status, json } = await curl(`${BASE}/tools/get-sum`, '{"a":"one"}');
  assert.deepEqual([status, json.errors], [422, [{ pointer: '/a', detail: 'must be number' }]]);
});

test('events come through the gateway as they happen, and who goes away cancels the call', async () => {
  const gone = new AbortController();
  const response = await fetch(`${mesh.url}${BASE}/tools/tell`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream', 'x-api-key': holder.key },
    body: '{"hang":true}',
    signal: gone.signal,
  });
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  assert.equal(worker.host.inFlight(), 1);
  let text = '';
  for await (const chunk of (response.body as ReadableStream<Uint8Array>).pipeThrough(
    new TextDecoderStream(),
  )) {
    text += chunk;
    if (text.includes('\n\n')) break;
  }
  assert.equal(text, 'event: progress\ndata: {"progress":1,"message":"one\\nline"}\n\n');
  gone.abort();
  await until('end of the call', () => worker.host.inFlight() === 0);
});

/** A GET, or a POST of JSON text, with the key that the role has. */
async function curl(
  path: string,
  body?: string,
  headers: Record<string, string> = { 'x-api-key': holder.key },
): Promise<Answer> {
  const init =
    body === undefined
      ? { headers }
      : { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } };
  return readAnswer(await fetch(`${mesh.url}${path}`, init));
}

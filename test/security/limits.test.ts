import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startConsul } from '../../kong/dev/consul.ts';
import { workerSettings } from '../../mesh/settings.ts';
import { startWorker, type Worker } from '../../workers/worker.ts';
import { collectCleanUps } from '../e2e/fleet-harness.ts';
import { type RealRedis, skipWithoutRedis, startRealRedis } from '../real-redis.ts';
import { until } from '../until.ts';
import {
  type Answer,
  INITIALIZE,
  readAnswer,
  scriptedService,
  silentLog,
  toolCall,
} from '../workers/helpers.ts';
import { startGateways, type TestGateways } from './gateways.ts';
import { makeKeys, newApiKey, workerKeys } from './keys.ts';

/** Limits that two gateways and two workers share through one real Redis, as their callers see them. */

const RATE = 100;
const PLACES = 10;
const QUOTA = 10;
const skip = skipWithoutRedis();
const keys = makeKeys();
const cleanUps = collectCleanUps();
const callers = new Map<string, string>();
const policy = {
  api_keys: [
    ...['rate', 'refused', 'rate-away'].map(id => holder(id, 'rated')),
    ...['places', 'places-again'].map(id => holder(id, 'flying')),
    ...['quota', 'quota-batch', 'quota-lists', 'quota-away'].map(id => holder(id, 'budgeted')),
  ],
  roles: {
    rated: { allow: [{ service: '*' }], rate_limit: { requests: RATE, window_s: 600 } },
    flying: { allow: [{ service: '*' }], in_flight: PLACES },
    budgeted: { allow: [{ service: '*' }], quota: { calls: QUOTA, period: 'day' } },
  },
};
let redis: RealRedis;
/** Two gateways that count on in memory when Redis is away, and one that refuses. */
let mesh: TestGateways;
let strict: TestGateways;

describe('limits', { skip }, () => {
  before(async () => {
    redis = await startRealRedis();
    cleanUps.add(() => redis.close());
    const consul = await startConsul();
    cleanUps.add(consul.close);
    for (const name of ['shop', 'shop']) await startShop(name, consul.url, 'allow');
    await startShop('strict', consul.url, 'deny');
    const options = { consulUrl: consul.url, keys, policy };
    const env = { MESH_REDIS_URL: redis.url };
    mesh = await startGateways(cleanUps.add, { ...options, count: 2, env });
    strict = await startGateways(cleanUps.add, {
      ...options,
      env: { ...env, MESH_ON_STORE_FAILURE: 'deny' },
    });
    for (const url of urls()) await until('healthy workers', () => hasHealthy(url, 'shop', 2));
    await until('healthy worker', () => hasHealthy(strict.url, 'strict', 1));
  });
  after(() => cleanUps.run());

  test('two gateways allow the requests of one, to 2 %', async () => {
    const answers = await Promise.all(
      Array.from({ length: 1.6 * RATE }, (_, i) => call(i, 'rate', '/api/v1/mcp/shop/tools/echo', {})),
    );
    const passed = answers.filter(({ status }) => status === 200).length;
    assert.ok(Math.abs(passed - RATE) <= 0.02 * RATE, `${passed} of ${RATE}`);
    const left = answers.filter(({ status }) => status === 200).map(answer => Number(remaining(answer)));
    assert.deepEqual([Math.min(...left), new Set(left).size], [0, passed], 'each answer tells what it left');
  });

  test('an answer tells the limit, and a refusal when to come back', async () => {
    const passed = await call(0, 'refused', '/api/v1/mcp/shop/tools/echo', {});
    assert.equal(passed.headers.get('ratelimit-policy'), `"default";q=${RATE};w=600`);
    assert.match(passed.headers.get('ratelimit') ?? '', /^"default";r=99;t=(600|599)$/);
    const refused = await call(1, 'rate', '/api/v1/mcp/shop/tools/echo', {});
    assert.deepEqual([refused.status, refused.json.code], [429, 'rate_limited']);
    assert.equal(refused.headers.get('ratelimit-policy'), `"default";q=${RATE};w=600`);
    assert.match(refused.headers.get('ratelimit') ?? '', /^"default";r=0;t=\d+$/);
    const wait = Number(refused.headers.get('retry-after'));
    assert.ok(wait > 500 && wait <= 600, `Retry-After ${wait}`);
    const rpc = await call(1, 'rate', '/api/v1/mcp/shop', INITIALIZE);
    assert.deepEqual([rpc.status, rpc.json.error.data.code], [429, 'rate_limited']);
  });

  test('two gateways let in as many requests at once as one', async () => {
    const path = '/api/v1/mcp/shop/tools/slow';
    const answers = await Promise.all(
      Array.from({ length: 3 * PLACES }, (_, i) => call(i, 'places', path, { ms: 800 })),
    );
    const codes = answers.map(({ status, json }) => (status === 200 ? 'passed' : json.code));
    assert.deepEqual(count(codes), { passed: PLACES, too_many_in_flight: 2 * PLACES });
    const [refused] = answers.filter(({ status }) => status === 429);
    assert.equal(refused?.headers.get('retry-after'), '1');
    // The log phase gives places back, a moment after the answer.
    await until('places that are free again', async () => {
      const again = await Promise.all(
        Array.from({ length: PLACES }, (_, i) => call(i, 'places', path, { ms: 1 })),
      );
      return again.every(({ status }) => status === 200);
    });
  });

  test('two workers allow the calls of one quota, and warn from 80 % of it on', async () => {
    const warnings = [];
    for (let i = 0; i < QUOTA; i += 1) {
      const { status, json, text } = await call(i, 'quota', '/api/v1/mcp/shop/tools/echo', {});
      assert.equal(status, 200, text);
      warnings.push(json._meta?.['mcp-mesh/quota']?.remaining);
    }
    assert.deepEqual(warnings, [...Array(7).fill(undefined), 2, 1, 0]);
    for (let i = 0; i < 4; i += 1) {
      const refused = await call(i, 'quota', '/api/v1/mcp/shop/tools/echo', {});
      assert.deepEqual([refused.status, refused.json.code], [429, 'quota_exceeded']);
      const wait = Number(refused.headers.get('retry-after'));
      assert.ok(wait > 0 && wait <= 86_400, `Retry-After ${wait}`);
    }
  });

  test('lists, initialize and what is refused cost nothing of a quota', async () => {
    const ask = (body: object) => call(0, 'quota-lists', '/api/v1/mcp/shop/execute', body);
    for (let i = 0; i < QUOTA; i += 1) {
      assert.equal((await ask({ command: 'tools/list' })).status, 200);
      assert.equal((await call(0, 'quota-lists', '/api/v1/mcp/shop', INITIALIZE)).status, 200);
      assert.equal((await ask({ command: 'tools/call', params: { name: ['echo'] } })).status, 400);
    }
    const { json } = await until('warning', async () => {
      const answer = await ask({ command: 'echo' });
      return answer.json._meta && answer;
    });
    assert.equal(json._meta['mcp-mesh/quota'].remaining, 2, 'the eighth call was the first to be warned');
  });

  test('each call of a batch counts', async () => {
    const params = { ...INITIALIZE.params, protocolVersion: '2025-03-26' };
    const opened = await call(0, 'quota-batch', '/api/v1/mcp/shop', { ...INITIALIZE, params });
    const session = { 'mcp-session-id': opened.headers.get('mcp-session-id') ?? '' };
    const calls = Array.from({ length: QUOTA + 2 }, (_, id) => toolCall(id, 'echo'));
    const batch = [...calls, { jsonrpc: '2.0', id: 'list', method: 'tools/list' }];
    const { json } = await call(1, 'quota-batch', '/api/v1/mcp/shop', batch, session);
    const outcomes = json.map(
      ({ error }: { error?: { data: { code: string } } }) => error?.data.code ?? 'passed',
    );
    assert.deepEqual(count(outcomes), { passed: QUOTA + 1, quota_exceeded: 2 });
  });

  test('without Redis they are counted in memory, or refused, as the setting says; and that is counted', async () => {
    assert.equal((await call(0, 'rate-away', '/api/v1/mcp/shop/tools/echo', {})).status, 200);
    await redis.close();
    for (let i = 0; i < 3; i += 1) {
      const answer = await call(0, 'rate-away', '/api/v1/mcp/shop/tools/echo', {});
      assert.deepEqual([answer.status, remaining(answer)], [200, String(RATE - 2 - i)], answer.text);
      const denied = await post(strict.url, 'rate-away', '/api/v1/mcp/shop/tools/echo', {});
      assert.deepEqual([denied.status, denied.json.code], [429, 'rate_limited']);
      assert.ok(denied.headers.get('retry-after'));
    }
    const spent = await call(0, 'rate', '/api/v1/mcp/shop/tools/echo', {});
    assert.equal(spent.status, 429, 'what Redis had counted is not forgotten');
    const quota = await call(0, 'quota-away', '/api/v1/mcp/shop/tools/echo', {});
    assert.equal(quota.status, 200);
    // That gateway has nothing to limit here: it is the worker that refuses.
    const refused = await post(strict.url, 'quota-away', '/api/v1/mcp/strict/tools/echo', {});
    assert.deepEqual([refused.status, refused.json.code], [429, 'rate_limited'], refused.text);
    for (const gateways of [mesh, strict]) {
      assert.ok((await gateways.metric('gateway_limit_store_failures_total')) >= 3);
      // Each process says it once; of the two gateways only one had anything to limit.
      assert.equal(gateways.lines.filter(line => line.includes('cannot be used')).length, 1);
    }
  });
});

function holder(id: string, role: string): object {
  const { key, hash } = newApiKey();
  callers.set(id, key);
  return { id, hash, roles: [role] };
}

async function startShop(name: string, consulUrl: string, onStoreFailure: 'allow' | 'deny'): Promise<Worker> {
  const worker = await startWorker({
    service: { ...scriptedService(), name, service_name: `mcp-${name}` },
    settings: {
      ...workerSettings({}),
      ...workerKeys(keys, name),
      consul: { url: consulUrl },
      advertiseAddress: '127.0.0.1',
      limits: { redisUrl: redis.url, onStoreFailure },
      drainIdleMs: 0,
      drainDeadlineMs: 100,
    },
    log: silentLog,
    register: true,
  });
  cleanUps.add(() => worker.stop());
  return worker;
}

const urls = () => mesh.gateways.map(({ url }) => url);

async function hasHealthy(url: string, service: string, healthy: number): Promise<boolean> {
  const headers = { 'x-api-key': callers.get('places-again') ?? '' };
  const response = await fetch(`${url}/api/v1/mcp/${service}/status`, { headers });
  const status = (await response.json()) as { healthy?: number };
  return status.healthy === healthy;
}

/** To the gateways in turn. */
function call(turn: number, caller: string, path: string, body: object, headers = {}): Promise<Answer> {
  return post(urls()[turn % 2] ?? '', caller, path, body, headers);
}

async function post(url: string, caller: string, path: string, body: object, headers = {}): Promise<Answer> {
  const response = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'x-api-key': callers.get(caller) ?? '',
      ...headers,
    },
    body: JSON.stringify(body),
  });
  return readAnswer(response);
}

function remaining({ headers }: Answer): string | undefined {
  return /;r=(\d+)/.exec(headers.get('ratelimit') ?? '')?.[1];
}

function count(names: string[]): Record<string, number> {
  return Object.fromEntries(
    [...new Set(names)].sort().map(name => [name, names.filter(other => other === name).length]),
  );
}

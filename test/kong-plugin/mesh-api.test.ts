import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it, type TestContext, test } from 'node:test';
import { fastify } from 'fastify';
import { startConsul } from '../../kong/dev/consul.ts';
import { createDiscovery } from '../../kong-plugin/discovery.ts';
import { createProver } from '../../kong-plugin/prover.ts';
import { trustedOnly } from '../../kong-plugin/trusted.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { addProofRoute } from '../../workers/proof-route.ts';
import { openConsul, put, registrationOf, request } from '../kong/consul-helpers.ts';
import { findConsul, startRealConsul } from '../real-consul.ts';
import { skipWithout } from '../real-program.ts';
import { until } from '../until.ts';
import { createApi, findInstance, listen, setUp, startStandIn } from './mesh-api/helpers.ts';

const cases: Record<string, (t: TestContext, url: string) => Promise<void>> = {
  async 'a registered instance is in Consul at its pinned address, checked, and gone when deregistered'(
    t,
    url,
  ) {
    const asked: string[] = [];
    const resolve = async (host: string) => {
      asked.push(host);
      return ['127.0.0.1'];
    };
    const { discovery, register, deregister } = await setUp(t, url, { resolve });
    const port = await listen(t, (_, response) => response.end('ok'));
    const body = {
      service_id: 'mcp-round-trip-1',
      service_name: 'mcp-round-trip',
      address: 'Worker.example',
      port,
      tags: ['blue', 'mcp', 'blue'],
      metadata: { version: '1.2', capabilities: 'search, read', team: 'tools' },
    };
    const answer = await register(body);
    assert.deepEqual([answer.status, answer.detail], [201, '']);
    assert.deepEqual(
      { ...answer.value, message: '' },
      { service_id: 'mcp-round-trip-1', status: 'registered', message: '' },
    );
    assert.match(String(answer.value.message), new RegExp(`127.0.0.1:${port} for "round-trip"`));
    assert.deepEqual(asked, ['worker.example']);
    const instance = await until(() => {
      const found = findInstance(discovery, 'mcp-round-trip-1');
      return found?.status === 'passing' && found;
    });
    assert.deepEqual(
      { ...instance, node: '' },
      {
        id: 'mcp-round-trip-1',
        service: 'mcp-round-trip',
        node: '',
        address: '127.0.0.1',
        port,
        tags: ['mcp', 'blue'],
        meta: {
          mcp_server: 'round-trip',
          version: '1.2',
          capabilities: 'search, read',
          team: 'tools',
          instance: 'mcp-round-trip-1',
          registered_by: 'key:operator',
          registered_at: '2026-11-22T12:00:00.000Z',
        },
        weights: { passing: 100, warning: 10 },
        status: 'passing',
        reason: '',
      },
    );
    const checks = (await request(url, 'agent/checks')).json() as Record<string, object>;
    assert.equal(
      Object.keys(checks).filter(id => id.startsWith('mcp-round-trip-1:')).length,
      1,
      'no heartbeat',
    );
    const gone = await deregister('mcp-round-trip-1');
    assert.deepEqual([gone.status, gone.value.status], [200, 'deregistered']);
    await until(() => !findInstance(discovery, 'mcp-round-trip-1'));
    assert.deepEqual((await deregister('mcp-round-trip-1')).code, 'unknown_instance');
  },

  async 'a health URL that redirects leads Consul nowhere'(t, url) {
    const { discovery, register } = await setUp(t, url);
    const asked: string[] = [];
    const secret = await listen(t, (incoming, response) => {
      asked.push(incoming.url ?? '');
      response.end('SECRET');
    });
    let checked = 0;
    const location = `http://127.0.0.1:${secret}/latest/meta-data`;
    const evil = createServer((_, response) => response.writeHead(302, { location }).end()).listen(
      0,
      '127.0.0.1',
    );
    evil.on('connection', () => {
      checked += 1;
    });
    await once(evil, 'listening');
    t.after(() => {
      evil.close();
      evil.closeAllConnections();
    });
    const { port } = evil.address() as AddressInfo;
    const id = 'mcp-redirects-1';
    const place = { service_id: id, service_name: 'mcp-redirects', address: '127.0.0.1', port };
    assert.equal((await register(place)).status, 201);
    await until(() => checked >= 1 && /critical|passing/.test(findInstance(discovery, id)?.status ?? ''));
    assert.deepEqual(asked, []);
    assert.doesNotMatch(JSON.stringify(findInstance(discovery, id)), /SECRET/);
  },

  async 'an instance that nothing answers for does not pass'(t, url) {
    const { discovery, register } = await setUp(t, url);
    const id = 'mcp-absent-1';
    await register({ service_id: id, service_name: 'mcp-absent', address: '127.0.0.1', port: 1 });
    const { reason } = await until(() => {
      const found = findInstance(discovery, id);
      return found?.status === 'critical' && found;
    });
    assert.match(reason, /connection refused/);
  },

  async 'an id that is taken is not overwritten, by whatever it is taken'(t, url) {
    const { consul, register, deregister } = await setUp(t, url);
    const named = (id: string, port = 11_100) => ({ service_id: id, service_name: 'mcp-taken', port });
    await consul.register(registrationOf('mcp-taken', { id: 'taken-worker' }));
    await put(url, 'agent/service/register', { ID: 'taken-db', Name: 'postgres', Port: 5432 });
    assert.equal((await register(named('taken-rest'))).status, 201);
    const taken = async () =>
      Object.entries((await request(url, 'agent/services')).json() as object).filter(([id]) =>
        id.startsWith('taken-'),
      );
    const before = await taken();
    assert.equal(before.length, 3);
    for (const [wanted, detail] of [
      [named('taken-worker'), /has registered itself/],
      [{ ...named('taken-worker'), address: '127.0.0.1' }, /has registered itself/],
      [named('taken-db'), /an instance of another service/],
      [{ ...named('taken-rest'), service_name: 'mcp-thief' }, /an instance of another service/],
      [named('taken-rest', 11_101), /registered at 10\.0\.0\.7:11100; deregister it first/],
      [
        { ...named('taken-rest'), address: '10.0.0.8' },
        /registered at 10\.0\.0\.7:11100; deregister it first/,
      ],
    ] as const) {
      const answer = await register(wanted);
      assert.deepEqual([answer.status, answer.code], [409, 'conflict']);
      assert.match(answer.detail, detail);
    }
    assert.deepEqual(await taken(), before);
    const worker = await deregister('taken-worker');
    assert.deepEqual([worker.status, worker.code], [409, 'conflict']);
    assert.match(worker.detail, /registered itself: stop its worker/);
    assert.equal((await deregister('taken-db')).code, 'unknown_instance');
    assert.deepEqual(await taken(), before);
  },

  async 'done again at the same place, it renews tags and metadata, and keeps the state of the check'(
    t,
    url,
  ) {
    const { discovery, register } = await setUp(t, url);
    const port = await listen(t, (_, response) => response.end('ok'));
    const body = { service_id: 'renewed-1', service_name: 'mcp-renewed', address: '127.0.0.1', port };
    await register({ ...body, tags: ['old'], metadata: { version: '1' } });
    await until(() => findInstance(discovery, 'renewed-1')?.status === 'passing');
    const states: string[] = [];
    assert.equal((await register({ ...body, tags: ['new'], metadata: { version: '2' } })).status, 201);
    await until(() => {
      const found = findInstance(discovery, 'renewed-1');
      states.push(found?.status ?? 'gone');
      return found?.meta.version === '2' && found.tags.join() === 'mcp,new';
    });
    assert.deepEqual([...new Set(states)], ['passing']);
  },

  async 'of registrations of one id at once, one place gets it'(t, url) {
    const { consul, register } = await setUp(t, url);
    const ports = Array.from({ length: 8 }, (_, i) => 12_000 + i);
    const answers = await Promise.all(
      ports.map(port => register({ service_id: 'raced-1', service_name: 'mcp-raced', port })),
    );
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, ...Array(7).fill(409)]);
    const winner = ports[answers.findIndex(({ status }) => status === 201)];
    const { Port } = (await request(url, 'agent/service/raced-1')).json() as { Port: number };
    assert.equal(Port, winner);
    await consul.deregister('raced-1');
  },
};

function runAll(start: () => Promise<{ url: string; close(): Promise<void> }>): void {
  let consul: Awaited<ReturnType<typeof start>> | undefined;
  before(async () => {
    consul = await start();
  });
  after(() => consul?.close());
  for (const [name, run] of Object.entries(cases)) it(name, async t => run(t, consul?.url ?? ''));
}

describe('with the stand-in for Consul 1.8', { concurrency: true }, () => runAll(() => startConsul()));

describe('with the stand-in for Consul since 1.9.17', { concurrency: true }, () =>
  runAll(() => startConsul({ knowsRedirects: true })),
);

describe('with a real Consul', { concurrency: true, skip: skipWithout(findConsul()) }, () =>
  runAll(async () => {
    const { consul, reason } = await startRealConsul();
    assert.ok(consul, `CI must run against a real Consul: ${reason}`);
    return consul;
  }),
);

test('the checks are made as each Consul can bear them, and end an instance that stays critical', async t => {
  const reap = { minimumMs: 1, intervalMs: 50 };
  for (const [knowsRedirects, suffix, type] of [
    [true, 'http', 'http'],
    [false, 'tcp', 'tcp'],
  ] as const) {
    const url = await startStandIn(t, { knowsRedirects });
    const { register } = await setUp(t, url);
    await register({ address: '127.0.0.1', port: 1 });
    const checks = (await request(url, 'agent/checks')).json() as Record<string, { Type: string }>;
    assert.deepEqual(
      Object.entries(checks).map(([id, check]) => [id, check.Type]),
      [[`github-1:${suffix}`, type]],
    );
  }
  for (const knowsRedirects of [true, false]) {
    const consul = openConsul(t, await startStandIn(t, { knowsRedirects, reap }));
    const { ttlSeconds: _, ...registration } = registrationOf('mcp-dead', { address: '127.0.0.1', port: 1 });
    await consul.register({ ...registration, deregisterAfterSeconds: 0.1 });
    assert.equal(await consul.isRegistered('mcp-dead-1'), true);
    await until(async () => !(await consul.isRegistered('mcp-dead-1')));
  }
});

test('a registered instance gets calls once it has proven itself, a fake never', async t => {
  const rootKey = randomBytes(32);
  const url = await startStandIn(t, { knowsRedirects: true });
  const discovery = createDiscovery({
    consul: openConsul(t, url),
    onInstances() {
      prover.update(discovery.list().flatMap(({ instances }) => instances));
      trusted.changed();
    },
    onError: () => {},
  });
  t.after(() => discovery.close());
  const prover = createProver({ rootKeys: [rootKey], onChange: () => trusted.changed(), log: () => {} });
  t.after(() => prover.close());
  const trusted = trustedOnly(discovery, prover);
  const { register } = createApi(openConsul(t, url), trusted);

  const app = fastify();
  t.after(() => app.close());
  app.get('/health', async () => 'ok');
  let port = 0;
  addProofRoute(app, {
    service: 'github',
    keys: [deriveServiceKey(rootKey, 'github')],
    instanceId: () => 'github-1',
    address: () => '127.0.0.1',
    port: () => port,
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  port = (app.server.address() as AddressInfo).port;
  let faked = 0;
  const fakePort = await listen(t, ({ url: path }, response) => {
    if (path?.startsWith('/proof')) faked += 1;
    response.end('{"macs":["AAAA"]}');
  });
  assert.equal((await register({ address: '127.0.0.1', port })).status, 201);
  assert.equal(
    (await register({ address: '127.0.0.1', port: fakePort, service_id: 'github-2' })).status,
    201,
  );
  await until(() => findInstance(trusted, 'github-1')?.status === 'passing');
  await until(() => findInstance(discovery, 'github-2')?.status === 'passing' && faked > 0);
  const fake = findInstance(trusted, 'github-2');
  assert.equal(fake?.status, 'critical');
  assert.match(fake?.reason ?? '', /has not proven that it belongs to this mesh/);
});

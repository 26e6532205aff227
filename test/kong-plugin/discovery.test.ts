import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { startConsul } from '../../kong/dev/consul.ts';
import { createDiscovery, type Discovery } from '../../kong-plugin/discovery.ts';
import { type Consul, createConsul, type Registration } from '../../mesh/consul.ts';

function registration(name: string, port: number): Registration {
  const service = `mcp-${name}`;
  return {
    id: `${service}-${port}`,
    name: service,
    address: '127.0.0.1',
    port,
    tags: ['mcp'],
    meta: { mcp_server: name },
    weights: { passing: 1, warning: 1 },
    ttlSeconds: 60,
    deregisterAfterSeconds: 600,
    health: { url: 'http://127.0.0.1:1/health', intervalSeconds: 60, timeoutSeconds: 1 },
  };
}

async function setUp(t: TestContext): Promise<{ consul: Consul; discovery: Discovery; url: string }> {
  const { url, close } = await startConsul();
  t.after(close);
  const consul = createConsul({ url });
  t.after(consul.close);
  const reader = createConsul({ url });
  const discovery = createDiscovery({ consul: reader, onInstances: () => {}, onError: () => {} });
  t.after(() => {
    discovery.close();
    reader.close();
  });
  return { consul, discovery, url };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await pause(10);
}

test('a service is known by its instances, by its definition, and by both', async t => {
  const { consul, discovery } = await setUp(t);
  await consul.register(registration('both', 1));
  await consul.putDefinition('both', { load_balancer: 'RANDOM' });
  await consul.putDefinition('empty', { load_balancer: 'IP_HASH' });
  await consul.register(registration('foreign', 2));
  await until(
    () => discovery.list().length === 3 && discovery.find('both')?.definition.load_balancer === 'RANDOM',
  );
  const seen = discovery.list().map(({ name, instances }) => [name, instances.length]);
  assert.deepEqual(seen, [
    ['both', 1],
    ['empty', 0],
    ['foreign', 1],
  ]);
  assert.equal(discovery.find('nope'), undefined);
});

test('instances that leave are forgotten, and the service stays known', async t => {
  const { consul, discovery } = await setUp(t);
  await consul.putDefinition('a', {});
  for (const port of [1, 2]) await consul.register(registration('a', port));
  await until(() => discovery.find('a')?.instances.length === 2);
  await consul.deregister('mcp-a-1');
  await until(() => discovery.find('a')?.instances.length === 1);
  await consul.deregister('mcp-a-2');
  await until(() => discovery.find('a')?.instances.length === 0);
});

test('a service that is not tagged for the mesh is none of ours', async t => {
  const { consul, discovery } = await setUp(t);
  await consul.register({ ...registration('db', 1), tags: ['postgres'] });
  await consul.register(registration('a', 2));
  await until(() => discovery.list().length > 0);
  assert.deepEqual(
    discovery.list().map(({ name }) => name),
    ['a'],
  );
});

test('ready resolves once all that Consul has is known', async t => {
  const { url, close } = await startConsul();
  t.after(close);
  const consul = createConsul({ url });
  t.after(consul.close);
  for (let port = 1; port <= 5; port += 1) await consul.register(registration(`s${port}`, port));
  const discovery = createDiscovery({ consul, onInstances: () => {}, onError: () => {} });
  t.after(() => discovery.close());
  await discovery.ready(10_000);
  assert.deepEqual(
    discovery.list().map(({ instances }) => instances.length),
    [1, 1, 1, 1, 1],
  );
});

test('without Consul, ready gives up and the error is reported', async t => {
  const errors: Error[] = [];
  const consul = createConsul({ url: 'http://127.0.0.1:1' });
  const discovery = createDiscovery({ consul, onInstances: () => {}, onError: error => errors.push(error) });
  t.after(() => {
    discovery.close();
    consul.close();
  });
  await discovery.ready(50);
  await until(() => errors.length > 0);
  assert.match(errors[0]?.message ?? '', /ECONNREFUSED|refused/);
});

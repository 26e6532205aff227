import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { startConsul } from '../../kong/dev/consul.ts';
import { createDiscovery, type Discovery } from '../../kong-plugin/discovery.ts';
import { createGatewayMetrics } from '../../kong-plugin/metrics.ts';
import { type Consul, createConsul, type Registration } from '../../mesh/consul.ts';
import { readInstances } from '../../mesh/consul-watch.ts';
import { until } from '../until.ts';

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
  await consul.register(registration('other', 9));
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

test('what has not changed stays the same object', async t => {
  const { consul, discovery } = await setUp(t);
  for (const [name, port] of [
    ['a', 1],
    ['a', 2],
    ['a', 3],
    ['b', 4],
  ] as const)
    await consul.register(registration(name, port));
  const instances = (name: string) => discovery.find(name)?.instances ?? [];
  await until(() => instances('a').length === 3 && instances('b').length === 1);
  const before = { a: instances('a'), b: instances('b') };
  await consul.report('mcp-a-2', 'critical', 'out of memory');
  await until(() => instances('a')[1]?.reason === 'out of memory');
  assert.equal(instances('b'), before.b);
  assert.notEqual(instances('a'), before.a);
  assert.deepEqual(
    instances('a').map((instance, i) => instance === before.a[i]),
    [true, false, true],
  );
});

test('a name that no URL can have is none of ours', async t => {
  const { consul, discovery } = await setUp(t);
  for (const [i, name] of ['../admin', '', 'A', '__proto__', 'x'.repeat(64)].entries())
    await consul.register({ ...registration(`odd${i}`, i), meta: { mcp_server: name } });
  await consul.putDefinition('Not_Ours', {});
  await consul.register(registration('a', 9));
  await until(() => discovery.find('a') !== undefined);
  assert.deepEqual(
    discovery.list().map(({ name }) => name),
    ['a'],
  );
});

test('1,000 instances are read in many turns, and only what changed is made anew', async () => {
  const entry = (i: number, status = 'passing') => ({
    Node: { Node: 'host', Address: '10.0.0.1' },
    Service: {
      ID: `mcp-a-${i}`,
      Service: 'mcp-a',
      Address: '',
      Port: i,
      Tags: null,
      Meta: { mcp_server: 'a' },
    },
    Checks: [{ CheckID: `mcp-a-${i}:ttl`, Status: status, Output: '', Notes: '' }],
  });
  const body = (changed: number) =>
    Array.from({ length: 1000 }, (_, i) => entry(i, i === changed ? 'critical' : 'passing'));
  const first = await readInstances(body(-1));
  let turns = 0;
  let counting = true;
  const count = () => {
    turns += 1;
    if (counting) setImmediate(count);
  };
  setImmediate(count);
  const second = await readInstances(body(500), first);
  counting = false;
  assert.ok(turns >= 5, `others had ${turns} turns`);
  assert.equal(second.length, 1000);
  assert.equal(second.filter((instance, i) => instance !== first[i]).length, 1);
  assert.equal(await readInstances(body(500), second), second);
});

test('the gauges tell how old and how large the catalogue is', async t => {
  const { consul, discovery } = await setUp(t);
  await consul.register(registration('a', 1));
  await consul.putDefinition('b', {});
  await consul.report('mcp-a-1', 'critical', 'broken');
  await until(
    () => discovery.find('a')?.instances[0]?.status === 'critical' && discovery.list().length === 2,
  );
  const metrics = createGatewayMetrics(undefined, { list: () => discovery.list(), age: () => 12.5 });
  const text = await metrics.text();
  for (const line of [
    'mcp_mesh_catalogue_age_seconds 12.5',
    'mcp_mesh_catalogue_services 2',
    'mcp_mesh_catalogue_instances{state="passing"} 0',
    'mcp_mesh_catalogue_instances{state="critical"} 1',
    'mcp_mesh_catalogue_instances{state="maintenance"} 0',
  ])
    assert.ok(text.includes(`${line}\n`), `${line} is not in\n${text}`);
  const now = Date.now();
  assert.ok(discovery.age(now) >= 0 && discovery.age(now + 60_000) >= 60);
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

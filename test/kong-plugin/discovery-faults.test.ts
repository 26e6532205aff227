import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createDiscovery, type Discovery } from '../../kong-plugin/discovery.ts';
import { createTableFile } from '../../kong-plugin/table-file.ts';
import { createConsul, type Instance } from '../../mesh/consul.ts';
import { adHocService } from '../../mesh/registry.ts';
import { createRegistration } from '../../workers/registration.ts';
import { put, request, startHealth } from '../kong/consul-helpers.ts';
import { findConsul, startConsulCluster, startRealConsul } from '../real-consul.ts';
import { skipWithout } from '../real-program.ts';
import { untilWithin } from '../until.ts';
import { silentLog } from '../workers/helpers.ts';

/** Only a limit for a test that hangs. */
const until = untilWithin(45_000);
/** Longer than a worker's TTL of 15 s. */
const OUTAGE_MS = 17_000;

const skip = skipWithout(findConsul());

describe('discovery and workers with a real Consul', { skip, concurrency: true }, () => {
  test('Consul is away for longer than a TTL and comes back with its data, then without', async t => {
    const { consul, reason } = await startRealConsul({ persistent: true });
    assert.ok(consul, reason);
    t.after(() => consul.close());
    // So many changes that a Consul without its data cannot have caught up with the index.
    for (let i = 0; i < 200; i += 1) await put(consul.url, 'kv/counter', String(i));
    const gateway = startGateway(t, consul.url);
    for (const name of ['a', 'b'])
      for (const host of ['one', 'two']) await startEntry(t, consul.url, name, host);
    await gateway.untilPassing({ a: 2, b: 2 });
    gateway.watchLoss();
    await until('definition', () => gateway.discovery.find('b')?.definition.load_balancer === 'ADAPTIVE');
    // The file is written within a second of the last change.
    await pause(1500);

    await consul.kill();
    await until('error', () => gateway.errors.length > 0);
    const age = gateway.discovery.age(Date.now());
    const restarted = startGateway(t, consul.url, gateway.path);
    // Long before the 60 s are over: the first error is enough.
    await restarted.discovery.ready(60_000);
    assert.deepEqual(restarted.passing(), { a: 2, b: 2 });
    assert.equal(restarted.discovery.find('b')?.definition.load_balancer, 'ADAPTIVE');
    restarted.watchLoss();
    await pause(OUTAGE_MS);
    for (const { discovery } of [gateway, restarted])
      assert.ok(discovery.age(Date.now()) > age + OUTAGE_MS / 2000);

    await consul.restart();
    for (const { recovered } of [gateway, restarted]) await until('recovery', () => recovered() > 0);
    await untilConsulHas(consul.url, { a: 2, b: 2 });
    const index = (await request(consul.url, 'catalog/services')).index;

    await consul.kill();
    await consul.restart({ lost: true });
    await untilConsulHas(consul.url, { a: 2, b: 2 });
    assert.ok((await request(consul.url, 'catalog/services')).index < index, 'the index was not reset');
    for (const { recovered } of [gateway, restarted]) await until('recovery', () => recovered() > 1);
    await until('fall of the age', () => gateway.discovery.age(Date.now()) < 40);
    for (const { lost, passing } of [gateway, restarted]) {
      assert.deepEqual(lost(), []);
      assert.deepEqual(passing(), { a: 2, b: 2 });
    }
  });

  test('three servers lose their leader, then a node vanishes', async t => {
    const { servers, agent, reason } = await startConsulCluster();
    assert.ok(servers, reason);
    t.after(() => Promise.all([...servers, agent].map(consul => consul.close())));
    const leaderIs = (await request(servers[0]?.url ?? '', 'status/leader')).json();
    const leader = servers.find(({ rpc }) => rpc === leaderIs);
    const follower = servers.find(server => server !== leader);
    assert.ok(leader && follower);
    const gateway = startGateway(t, follower.url);
    await startEntry(t, follower.url, 'a', 'server');
    await startEntry(t, agent.url, 'a', 'agent');
    await gateway.untilPassing({ a: 2 });
    gateway.watchLoss();

    await leader.kill();
    await startEntry(t, agent.url, 'b', 'agent');
    await gateway.untilPassing({ a: 2, b: 1 });
    assert.deepEqual(gateway.lost(), []);
    assert.notEqual((await request(follower.url, 'status/leader')).json(), leaderIs);

    await agent.kill();
    await gateway.untilPassing({ a: 1, b: 0 });
    const gone = gateway.discovery.find('a')?.instances.find(({ id }) => id.includes('agent'));
    assert.equal(gone?.status, 'critical');
    assert.match(gone.reason, /Agent not live or unreachable/);
  });

  test('the agent forgets a worker, and an operator takes one out for maintenance', async t => {
    const { consul, reason } = await startRealConsul();
    assert.ok(consul, reason);
    t.after(() => consul.close());
    const gateway = startGateway(t, consul.url);
    const [kept, forgotten] = [
      await startEntry(t, consul.url, 'a', 'kept'),
      await startEntry(t, consul.url, 'a', 'forgotten'),
    ];
    await gateway.untilPassing({ a: 2 });

    await put(consul.url, `agent/service/deregister/${forgotten}`);
    await gateway.untilPassing({ a: 1 });
    assert.deepEqual(
      gateway.instances('a').map(({ id }) => id),
      [kept],
    );
    await gateway.untilPassing({ a: 2 });

    await put(consul.url, `agent/service/maintenance/${kept}?enable=true&reason=new+disk`);
    await gateway.untilPassing({ a: 1 });
    const { status, reason: why } = gateway.instances('a').find(({ id }) => id === kept) as Instance;
    assert.deepEqual([status, why], ['maintenance', 'new disk']);
    await put(consul.url, `agent/service/maintenance/${kept}?enable=false`);
    await gateway.untilPassing({ a: 2 });
    assert.deepEqual(gateway.errors, []);
  });

  test('a Consul that accepts and never answers delays the first requests, and only these', async t => {
    const { consul, reason } = await startRealConsul();
    assert.ok(consul, reason);
    t.after(() => consul.close());
    const gateway = startGateway(t, consul.url);
    await startEntry(t, consul.url, 'a', 'one');
    await gateway.untilPassing({ a: 1 });
    await pause(1500);

    process.kill(consul.pid, 'SIGSTOP');
    const restarted = startGateway(t, consul.url, gateway.path);
    await restarted.discovery.ready(500);
    assert.deepEqual(restarted.passing(), { a: 1 });
    // A timer may fire a millisecond early.
    await pause(10);
    const next = restarted.discovery.ready(500).then(() => 'at once');
    const turn = new Promise(resolve => setImmediate(resolve, 'late'));
    assert.equal(await Promise.race([next, turn]), 'at once');
    assert.deepEqual(restarted.errors, []);
    const age = restarted.discovery.age(Date.now());

    process.kill(consul.pid, 'SIGCONT');
    await until('answer', () => restarted.discovery.age(Date.now()) < age);
    assert.deepEqual([gateway.passing(), restarted.passing()], [{ a: 1 }, { a: 1 }]);
  });
});

/** A gateway's discovery with its file; what happens to it can be asked for. */
function startGateway(t: TestContext, url: string, path = join(makeFolder(t), 'table.json')) {
  const consul = createConsul({ url });
  const errors: string[] = [];
  const lost: string[] = [];
  let [recovered, expected]: [number, Record<string, number>] = [0, {}];
  const discovery = createDiscovery({
    consul,
    onInstances() {
      const now = JSON.stringify(passingOf(discovery));
      if (Object.entries(expected).some(([name, count]) => (passingOf(discovery)[name] ?? 0) < count))
        lost.push(now);
    },
    onError: ({ message }) => errors.push(message),
    onRecover: () => (recovered += 1),
    file: createTableFile({ path, log: text => errors.push(text) }),
  });
  t.after(() => {
    discovery.close();
    consul.close();
  });
  return {
    discovery,
    path,
    errors,
    recovered: () => recovered,
    passing: () => passingOf(discovery),
    instances: (name: string) => discovery.find(name)?.instances ?? [],
    /** Each state of the table from `watchLoss` on in which a service has fewer passing instances than then. */
    lost: () => lost,
    watchLoss: () => (expected = passingOf(discovery)),
    untilPassing: (wanted: Record<string, number>) =>
      until(
        'such a table',
        () => JSON.stringify(passingOf(discovery)) === JSON.stringify(wanted),
        () => `the table is ${JSON.stringify(discovery.list())}, errors: ${errors.join('; ')}`,
      ),
  };
}

/** A worker's entry in Consul, with its heartbeat and a health check that passes; returns its id. */
async function startEntry(t: TestContext, url: string, name: string, host: string): Promise<string> {
  const consul = createConsul({ url });
  const { port } = new URL(await startHealth(t, 200, 'ok'));
  const service = adHocService({ name, command: 'unused', args: [] });
  const options = { consul, service, host, address: '127.0.0.1', port: Number(port), log: silentLog };
  const registration = createRegistration(options);
  registration.start();
  registration.report('ready', '');
  t.after(async () => {
    await registration.stop();
    consul.close();
  });
  return `mcp-${name}-${host}-${port}`;
}

function passingOf(discovery: Discovery): Record<string, number> {
  const counts = discovery
    .list()
    .map(({ name, instances }) => [name, instances.filter(({ status }) => status === 'passing').length]);
  return Object.fromEntries(counts);
}

/** Asks Consul itself. */
async function untilConsulHas(url: string, wanted: Record<string, number>): Promise<void> {
  const count = async (name: string) =>
    ((await request(url, `health/service/mcp-${name}?passing`)).json() as unknown[]).length;
  for (const [name, instances] of Object.entries(wanted)) {
    await until(`return of ${name} to Consul`, async () => (await count(name)) === instances);
  }
}

function makeFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-discovery-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

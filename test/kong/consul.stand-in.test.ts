import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { startConsul } from '../../kong/dev/consul.ts';
import { look, lookAtInstances, openConsul, put, registrationOf, request } from './consul-helpers.ts';

/** What a real Consul cannot be made to do within seconds, or does not do at all. */

async function start(t: TestContext, options: Parameters<typeof startConsul>[0] = {}) {
  const consul = await startConsul(options);
  t.after(() => consul.close());
  return consul;
}

test('watches recover from a restart with the same index and other data', async t => {
  const first = await startConsul();
  const consul = openConsul(t, first.url);
  const instances = lookAtInstances(consul, 'mcp-a');
  const services = look<Map<string, string[]>>((onChange, onError) =>
    consul.watchServices(onChange, onError),
  );
  // Its check does nothing by itself: a health URL's first result would be one index more, sooner or later.
  const register = (url: string, differs: { Port: number; Tags: string[] }) =>
    put(url, 'agent/service/register', { ID: 'mcp-a-1', Name: 'mcp-a', Check: { TTL: '1h' }, ...differs });
  await register(first.url, { Port: 1, Tags: ['mcp'] });
  await instances.until(([one]) => one?.port === 1);
  await services.until(all => all.has('mcp-a'));
  const { index } = await request(first.url, 'health/service/mcp-a');

  const errors = [instances.untilError(), services.untilError()];
  await first.close();
  const [error] = await Promise.all(errors);
  assert.match(error?.message ?? '', /cannot watch health\/service\/mcp-a at Consul 127\.0\.0\.1:\d+: /);
  const second = await startConsul({ port: Number(new URL(first.url).port) });
  t.after(() => second.close());
  await register(second.url, { Port: 2, Tags: [] });
  assert.equal((await request(second.url, 'health/service/mcp-a')).index, index);
  await instances.until(([one]) => one?.port === 2);
  await services.until(all => all.get('mcp-a')?.length === 0);
});

test('with Consul down the last data stay, and a worker registers again once it is up', async t => {
  const first = await startConsul();
  const consul = openConsul(t, first.url);
  const seen = lookAtInstances(consul, 'mcp-a');
  await consul.register(registrationOf('mcp-a'));
  await consul.report('mcp-a-1', 'critical', 'one');
  await seen.until(([one]) => one?.reason.startsWith('one') === true);
  const [count, error] = [seen.values.length, seen.untilError()];
  await first.close();
  await error;
  await assert.rejects(consul.report('mcp-a-1', 'critical', 'two'), {
    name: 'ConsulError',
    status: undefined,
  });
  await assert.rejects(consul.isRegistered('mcp-a-1'), /is an agent running there\?/);
  assert.equal(seen.values.length, count);

  const second = await startConsul({ port: Number(new URL(first.url).port) });
  t.after(() => second.close());
  assert.equal(await consul.isRegistered('mcp-a-1'), false);
  await assert.rejects(consul.report('mcp-a-1', 'critical', 'two'), { name: 'NotRegistered' });
  await consul.register(registrationOf('mcp-a'));
  await consul.report('mcp-a-1', 'critical', 'two');
  await seen.until(([one]) => one?.reason.startsWith('two') === true);
});

test('an instance that stays critical is reaped, one that passes in time is not', async t => {
  const { url } = await start(t, { reap: { minimumMs: 300, intervalMs: 20 } });
  const consul = openConsul(t, url);
  const seen = lookAtInstances(consul, 'mcp-a');
  const [dead, alive] = [
    { ...registrationOf('mcp-a', { id: 'dead' }) },
    { ...registrationOf('mcp-a', { id: 'alive' }) },
  ];
  for (const registration of [dead, alive]) {
    await consul.register({ ...registration, deregisterAfterSeconds: 0.001 });
  }
  await consul.report('alive', 'passing', 'ready');
  await seen.until(list => list.length === 2);
  await seen.until(list => list.length === 1);
  assert.equal(seen.values.at(-1)?.[0]?.id, 'alive');
  await assert.rejects(consul.report('dead', 'passing', ''), { name: 'NotRegistered' });
});

test('what it does not know is a 501 that names it, on stderr too', async t => {
  const { url } = await start(t);
  const printed = t.mock.method(console, 'error', () => undefined).mock;
  const body = JSON.stringify({ Name: 'x', Connect: { Native: true } });
  const requests: [method: string, path: string, names: RegExp][] = [
    ['GET', 'agent/members', /endpoint GET \/v1\/agent\/members/],
    ['GET', 'health/service/x?near=_agent', /query parameter near of GET/],
    ['GET', 'agent/services?index=1', /query parameter index/],
    ['PUT', 'catalog/services', /method PUT of \/v1\/catalog\/services/],
    ['GET', 'agent/service/register', /method GET of/],
    ['PUT', 'agent/service/register', /no field Connect/],
  ];
  for (const [method, path, names] of requests) {
    const answer = await request(url, path, { method, ...(method === 'PUT' ? { body } : {}) });
    assert.equal(answer.status, 501, path);
    assert.match(answer.text, names);
    assert.match(String(printed.calls.at(-1)?.arguments[0]), names);
  }
  assert.equal(printed.callCount(), requests.length);
});

test('a body beyond the limit is refused, and the connection still works', async t => {
  const { url } = await start(t);
  assert.equal((await put(url, 'kv/big', 'x'.repeat(524_289))).status, 413);
  assert.equal((await put(url, 'kv/big', 'x'.repeat(524_288))).text, 'true');
});

test('it closes with blocking queries open', async () => {
  const consul = await startConsul();
  const { index } = await request(consul.url, 'catalog/services');
  const blocked = request(consul.url, `catalog/services?index=${index}&wait=10m`);
  const outcome = assert.rejects(blocked);
  await request(consul.url, 'status/leader');
  await consul.close();
  await outcome;
});

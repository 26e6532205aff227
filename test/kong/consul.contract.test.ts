import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { startConsul } from '../../kong/dev/consul.ts';
import { ConsulError, NotRegistered } from '../../mesh/consul.ts';
import { findConsul, startRealConsul } from '../real-consul.ts';
import { skipWithout } from '../real-program.ts';
import { definitionCases } from './consul-definition-cases.ts';
import {
  look,
  lookAtInstances,
  openConsul,
  put,
  registrationOf,
  request,
  startHealth,
  startServer,
} from './consul-helpers.ts';
import { wireCases } from './consul-wire-cases.ts';

type Case = (t: TestContext, url: string) => Promise<void>;

/** Each uses service names of its own: they run at the same time against one Consul. */
const cases: Record<string, Case> = {
  async 'an instance is critical once registered, before any check has run'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-new');
    assert.deepEqual(await seen.until(() => true), []);
    await consul.register(registrationOf('mcp-new'));
    const [instance] = await seen.until(list => list.length === 1);
    assert.equal(instance?.status, 'critical');
    assert.notEqual(instance.reason, '');
    assert.equal(await consul.isRegistered('mcp-new-1'), true);
    assert.equal(await consul.isRegistered('mcp-new-2'), false);
  },

  async 'an instance that fails says why in its own words, else in those of the other check'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-broken');
    await consul.register(registrationOf('mcp-broken'));
    await consul.report('mcp-broken-1', 'passing', 'server is ready');
    const [unreachable] = await seen.until(([one]) => /refused/.test(one?.reason ?? ''));
    assert.match(unreachable?.reason ?? '', /^Get .*http:\/\/127\.0\.0\.1:1\/health.* connection refused$/);
    assert.equal(unreachable?.status, 'critical');
    await consul.report('mcp-broken-1', 'critical', 'child exits with 127');
    await seen.until(([one]) => one?.reason === 'child exits with 127' && one.status === 'critical');
  },

  async 'an instance passes when both checks do, and shows all it registered'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-good');
    await consul.register(registrationOf('mcp-good', { healthUrl: await startHealth(t, 200, 'fine') }));
    await consul.report('mcp-good-1', 'passing', 'ready');
    const [instance] = await seen.until(([one]) => one?.status === 'passing');
    assert.ok(instance?.node);
    assert.deepEqual(instance, {
      id: 'mcp-good-1',
      service: 'mcp-good',
      node: instance.node,
      address: '127.0.0.1',
      port: 11_100,
      tags: ['mcp', 'test'],
      meta: { mcp_server: 'mcp-good', version: '1.2.3' },
      weights: { passing: 100, warning: 10 },
      status: 'passing',
      reason: '',
    });
    assert.equal(seen.errors.length, 0);
  },

  async 'a new reason reaches the catalogue while the instance stays critical'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-again');
    await consul.register(registrationOf('mcp-again'));
    for (const reason of ['first', 'second', 'second', 'third']) {
      await consul.report('mcp-again-1', 'critical', reason);
      await seen.until(([one]) => one?.status === 'critical' && one.reason.startsWith(reason));
    }
  },

  async 'Consul itself holds a new output of an equally critical check back'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-held');
    for (const id of ['mcp-held-1', 'mcp-held-2']) await consul.register(registrationOf('mcp-held', { id }));
    await consul.report('mcp-held-1', 'critical', 'old words');
    await seen.until(([one]) => /^old words/.test(one?.reason ?? ''));
    await put(url, 'agent/check/update/mcp-held-1:ttl', { Status: 'critical', Output: 'new words' });
    const checks = (await request(url, 'agent/checks')).json() as Record<string, { Output: string }>;
    assert.equal(checks['mcp-held-1:ttl']?.Output, 'new words');
    await put(url, 'agent/check/update/mcp-held-2:ttl', { Status: 'warning', Output: 'later' });
    const [first] = await seen.until(([, two]) => /^later/.test(two?.reason ?? ''));
    assert.match(first?.reason ?? '', /^old words/);
  },

  async 'a TTL that runs out is critical, and the report after it is seen'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-late');
    const healthUrl = await startHealth(t, 200, 'fine');
    await consul.register(registrationOf('mcp-late', { healthUrl, ttlSeconds: 1 }));
    await consul.report('mcp-late-1', 'passing', 'ready');
    await seen.until(([one]) => one?.reason === 'TTL expired (last output before timeout follows): ready');
    await consul.report('mcp-late-1', 'critical', 'draining');
    await seen.until(([one]) => one?.reason === 'draining');
  },

  async 'a 503 of the health URL is critical with its body as the reason'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-down');
    const healthUrl = await startHealth(t, 503, 'crash-loop: exit 1');
    await consul.register(registrationOf('mcp-down', { healthUrl }));
    await consul.report('mcp-down-1', 'passing', 'ready');
    const reason = `HTTP GET ${healthUrl}: 503 Service Unavailable Output: crash-loop: exit 1`;
    await seen.until(([one]) => one?.status === 'critical' && one.reason === reason);
  },

  async 'an instance that passed follows its health URL: 429 is a warning, and 200 passes again'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-busy');
    let status = 200;
    const server = await startServer(t, (_, response) => response.writeHead(status).end('busy'));
    await consul.register(registrationOf('mcp-busy', { healthUrl: server }));
    await consul.report('mcp-busy-1', 'passing', 'ready');
    await seen.until(([one]) => one?.status === 'passing');
    status = 429;
    await seen.until(
      ([one]) => one?.status === 'warning' && one.reason.endsWith('429 Too Many Requests Output: busy'),
    );
    status = 200;
    await seen.until(([one]) => one?.status === 'passing');
  },

  async 'a deregistered instance is gone, and deregistering it again is no error'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-leaves');
    await consul.register(registrationOf('mcp-leaves'));
    await seen.until(list => list.length === 1);
    await consul.deregister('mcp-leaves-1');
    await seen.until(list => list.length === 0);
    assert.equal(await consul.isRegistered('mcp-leaves-1'), false);
    await consul.deregister('mcp-leaves-1');
  },

  async 'a report on an instance that the agent does not know throws NotRegistered'(t, url) {
    const consul = openConsul(t, url);
    await assert.rejects(consul.report('mcp-never-1', 'passing', ''), NotRegistered);
    await consul.register(registrationOf('mcp-forgotten'));
    await consul.report('mcp-forgotten-1', 'passing', '');
    await put(url, 'agent/service/deregister/mcp-forgotten-1');
    await assert.rejects(consul.report('mcp-forgotten-1', 'passing', ''), NotRegistered);
    await consul.register(registrationOf('mcp-forgotten'));
    await consul.report('mcp-forgotten-1', 'passing', '');
  },

  async 'registering an id again replaces everything but the state of its checks'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-twice');
    const healthUrl = await startHealth(t, 200, 'fine');
    await consul.register(registrationOf('mcp-twice', { healthUrl }));
    await consul.report('mcp-twice-1', 'passing', 'ready');
    const stray = { CheckID: 'mcp-twice-1:stray', TTL: '1h', Status: 'critical' };
    await put(url, 'agent/service/register', { ID: 'mcp-twice-1', Name: 'mcp-twice', Check: stray });
    await seen.until(([one]) => /stray/.test(one?.reason ?? ''));
    const meta = { version: '2' };
    const next = { port: 11_200, tags: ['mcp', 'new'], meta, weights: { passing: 7, warning: 1 }, healthUrl };
    await consul.register(registrationOf('mcp-twice', next));
    const [instance] = await seen.until(([one]) => one?.status === 'passing' && one.port === 11_200);
    assert.deepEqual([instance?.tags, instance?.meta, instance?.weights], [next.tags, meta, next.weights]);
  },

  async 'reports for one id take effect in the order of the calls'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-order');
    await consul.register(registrationOf('mcp-order', { healthUrl: await startHealth(t, 200, 'fine') }));
    const words = Array.from({ length: 20 }, (_, i) => `word ${i}`);
    const reports = words.map((word, i) =>
      consul.report('mcp-order-1', i % 2 ? 'passing' : 'critical', word),
    );
    await Promise.all([...reports, consul.report('mcp-order-1', 'critical', 'last word')]);
    await seen.until(([one]) => one?.reason === 'last word');
  },

  async 'a long reason is cut between characters, before Consul cuts it'(t, url) {
    const consul = openConsul(t, url);
    await consul.register(registrationOf('mcp-long', { healthUrl: await startHealth(t, 200, 'fine') }));
    for (const pad of ['', 'a', 'ab']) {
      await consul.report('mcp-long-1', 'critical', pad + '€'.repeat(3000));
      const checks = (await request(url, 'agent/checks')).json() as Record<string, { Output: string }>;
      const output = checks['mcp-long-1:ttl']?.Output ?? '';
      assert.match(output, /^a?b?€{1300,} … \(cut\)$/);
      assert.ok(Buffer.byteLength(output) <= 4096);
    }
  },

  async 'what Consul refuses to register is an error with its words'(t, url) {
    const consul = openConsul(t, url);
    const long = consul.register(registrationOf('mcp-refused', { meta: { tools: 'x'.repeat(513) } }));
    await assert.rejects(long, (error: Error) => {
      assert.ok(error instanceof ConsulError);
      assert.equal(error.status, 400);
      return /cannot register mcp-refused-1 .*Invalid Service Meta.*tools/.test(error.message);
    });
    assert.equal(await consul.isRegistered('mcp-refused-1'), false);
  },

  async 'maintenance is a status of its own, with its reason, and ends'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtInstances(consul, 'mcp-maintained');
    await consul.register(registrationOf('mcp-maintained', { healthUrl: await startHealth(t, 200, 'fine') }));
    await consul.report('mcp-maintained-1', 'passing', 'ready');
    await seen.until(([one]) => one?.status === 'passing');
    await put(url, 'agent/service/maintenance/mcp-maintained-1?enable=true&reason=disk%20swap');
    await seen.until(([one]) => one?.status === 'maintenance' && one.reason === 'disk swap');
    await put(url, 'agent/service/maintenance/mcp-maintained-1?enable=false');
    await seen.until(([one]) => one?.status === 'passing');
  },

  async 'the watch of services sees services come with their tags and go'(t, url) {
    const consul = openConsul(t, url);
    const seen = look<Map<string, string[]>>((onChange, onError) => consul.watchServices(onChange, onError));
    assert.ok((await seen.until(() => true)).has('consul'));
    await consul.register(registrationOf('mcp-listed', { id: 'listed-1', tags: ['mcp', 'b'] }));
    await consul.register(registrationOf('mcp-listed', { id: 'listed-2', tags: ['mcp', 'a'] }));
    await seen.until(services => services.get('mcp-listed')?.length === 3);
    assert.deepEqual(seen.values.at(-1)?.get('mcp-listed'), ['a', 'b', 'mcp']);
    for (const id of ['listed-1', 'listed-2']) await consul.deregister(id);
    await seen.until(services => !services.has('mcp-listed'));
  },

  async 'a watch is silent about what other services do'(t, url) {
    const consul = openConsul(t, url);
    const healthUrl = await startHealth(t, 200, 'fine');
    await consul.register(registrationOf('mcp-quiet', { healthUrl }));
    await consul.report('mcp-quiet-1', 'passing', 'ready');
    const [quiet, absent] = [lookAtInstances(consul, 'mcp-quiet'), lookAtInstances(consul, 'mcp-absent')];
    await quiet.until(([one]) => one?.status === 'passing');
    await absent.until(list => list.length === 0);
    const before = quiet.values.length;
    const noisy = lookAtInstances(consul, 'mcp-noisy');
    for (let i = 0; i < 3; i++) {
      await consul.register(registrationOf('mcp-noisy', { healthUrl, port: 12_000 + i }));
      await noisy.until(([one]) => one?.port === 12_000 + i);
      await consul.deregister('mcp-noisy-1');
      await noisy.until(list => list.length === 0);
    }
    await consul.report('mcp-quiet-1', 'critical', 'stopped');
    await quiet.until(([one]) => one?.reason === 'stopped');
    assert.equal(quiet.values.length, before + 1);
    assert.equal(absent.values.length, 1);
    assert.ok(quiet.watch.answeredAt() > 0);
  },

  async 'a closed watch says nothing more, and a closed client refuses'(t, url) {
    const consul = openConsul(t, url);
    const [closed, open] = [lookAtInstances(consul, 'mcp-closed'), lookAtInstances(consul, 'mcp-closed')];
    await Promise.all([closed.until(() => true), open.until(() => true)]);
    closed.watch.close();
    await consul.register(registrationOf('mcp-closed'));
    await open.until(list => list.length === 1);
    assert.equal(closed.values.length, 1);
    assert.equal(closed.errors.length, 0);
    consul.close();
    await assert.rejects(consul.deregister('mcp-closed-1'), /closed/);
    assert.throws(() => lookAtInstances(consul, 'mcp-closed'), /closed/);
    assert.equal(open.errors.length, 0);
  },

  async 'our address towards Consul is the one of the interface that routes there'(t, url) {
    assert.equal(await openConsul(t, url).localAddress(), '127.0.0.1');
  },
};

describe('the stand-in for Consul', { concurrency: true }, () => {
  runAll(async () => startConsul());
});

describe('a real Consul', {
  concurrency: true,
  skip: skipWithout(findConsul()),
}, () => {
  runAll(async () => {
    const { consul, reason } = await startRealConsul();
    assert.ok(consul, `CI must run the contract against a real Consul: ${reason}`);
    return consul;
  });
});

function runAll(start: () => Promise<{ url: string; close(): Promise<void> }>): void {
  let consul: Awaited<ReturnType<typeof start>> | undefined;
  before(async () => {
    consul = await start();
  });
  after(() => consul?.close());
  for (const [name, run] of Object.entries({ ...cases, ...wireCases, ...definitionCases })) {
    it(name, async t => run(t, consul?.url ?? ''));
  }
}

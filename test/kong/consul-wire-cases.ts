import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { openConsul, put, registrationOf, request, startHealth } from './consul-helpers.ts';

/** What a registration must not contain, with the words of the answer. */
const REFUSED: [body: unknown, text: string][] = [
  ['{"Name"', 'Request decode failed'],
  [{ ID: 'x' }, 'Missing service name'],
  [{ Name: 'x', Address: '0.0.0.0' }, 'Invalid service address'],
  [{ Name: 'x', Weights: { Passing: -1, Warning: 1 } }, 'Invalid Weights: Passing must be greater than 0'],
  [
    { Name: 'x', Meta: { 'k k': 'v' } },
    "Invalid Service Meta: Couldn't load metadata pair ('k k', 'v'): Key contains invalid characters",
  ],
  [{ Name: 'x', Check: { Name: 'n' } }, 'Invalid check: TTL must be > 0 for TTL checks'],
  [
    { Name: 'x', Check: { HTTP: 'http://x' } },
    'Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks',
  ],
  [{ Name: 'x', Check: { TTL: 'abc' } }, 'Request decode failed: time: invalid duration'],
  [
    { Name: 'x', Check: { TTL: '1s', Status: 'nope' } },
    "Status for checks must 'passing', 'warning', 'critical'",
  ],
];

/** Contract cases on Consul's HTTP interface itself. */
export const wireCases: Record<string, (t: TestContext, url: string) => Promise<void>> = {
  async 'an unknown service is an empty list with an index'(_, url) {
    for (const path of ['health/service/mcp-nobody', 'catalog/service/mcp-nobody']) {
      const answer = await request(url, path);
      assert.deepEqual(answer.json(), []);
      assert.ok(answer.index >= 1);
    }
  },

  async 'a blocking query without a change returns after its wait with the same index'(t, url) {
    await openConsul(t, url).register(
      registrationOf('mcp-still', { healthUrl: 'http://127.0.0.1:1/', health: SLOW_HEALTH }),
    );
    await openConsul(t, url).report('mcp-still-1', 'critical', 'still');
    let known = await request(url, 'health/service/mcp-still');
    // The report may still be on its way to the catalogue.
    while (!known.text.includes('still"'))
      known = await request(url, `health/service/mcp-still?index=${known.index}`);
    known = await request(url, `health/service/mcp-still?index=${known.index}&wait=100ms`);
    const started = performance.now();
    const answer = await request(url, `health/service/mcp-still?index=${known.index}&wait=500ms`);
    assert.ok(performance.now() - started >= 450);
    assert.deepEqual([answer.index, answer.json()], [known.index, known.json()]);
  },

  async 'a blocking query returns at a change, and one with index 0 at once'(_, url) {
    const { index } = await request(url, 'kv/contract/awaited');
    const blocked = request(url, `kv/contract/awaited?index=${index}&wait=10m`);
    await put(url, 'kv/contract/awaited', 'now');
    let answer = await blocked;
    // The whole store's index stands for a missing key: writes of other cases wake us too.
    while (answer.status === 404)
      answer = await request(url, `kv/contract/awaited?index=${answer.index}&wait=10m`);
    assert.ok(answer.index > index);
    assert.equal((await request(url, 'kv/contract/awaited?index=0&wait=10m')).index, answer.index);
  },

  async 'a wrong index or wait is a 400'(_, url) {
    for (const [query, text] of [
      ['index=abc', 'Invalid index'],
      ['index=1&wait=abc', 'Invalid wait time'],
      ['index=1&wait=5', 'Invalid wait time'],
    ]) {
      const answer = await request(url, `catalog/services?${query}`);
      assert.deepEqual([answer.status, answer.text.trim()], [400, text]);
    }
  },

  async 'catalogue, health and agent show a service in the same shapes'(t, url) {
    const healthUrl = await startHealth(t, 200, 'fine');
    const consul = openConsul(t, url);
    await consul.register(registrationOf('mcp-shape', { healthUrl }));
    let answer = await request(url, 'health/service/mcp-shape');
    while (answer.text === '[]' || !answer.text.includes('mcp-shape-1:ttl')) {
      answer = await request(url, `health/service/mcp-shape?index=${answer.index}`);
    }
    const [entry] = answer.json() as [{ Node: object; Service: object; Checks: { CheckID: string }[] }];
    const service = {
      ...{
        ID: 'mcp-shape-1',
        Service: 'mcp-shape',
        Tags: ['mcp', 'test'],
        Address: '127.0.0.1',
        Port: 11_100,
      },
      ...{ Meta: { mcp_server: 'mcp-shape', version: '1.2.3' }, Weights: { Passing: 100, Warning: 10 } },
      EnableTagOverride: false,
    };
    assert.partialDeepStrictEqual(entry.Service, service);
    assert.partialDeepStrictEqual(entry.Node, { Address: '127.0.0.1', Datacenter: 'dc1' });
    assert.deepEqual(entry.Checks.map(check => check.CheckID).sort(), [
      'mcp-shape-1:http',
      'mcp-shape-1:ttl',
      'serfHealth',
    ]);
    const ttl = entry.Checks.find(check => check.CheckID === 'mcp-shape-1:ttl');
    const words = {
      Status: 'critical',
      Output: '',
      Notes: '',
      Type: 'ttl',
      ServiceTags: ['mcp', 'test'],
      Definition: {},
    };
    assert.partialDeepStrictEqual(ttl, { ...words, ServiceID: 'mcp-shape-1', ServiceName: 'mcp-shape' });

    const [row] = (await request(url, 'catalog/service/mcp-shape')).json() as [object];
    assert.partialDeepStrictEqual(row, {
      ...{
        Address: '127.0.0.1',
        ServiceID: 'mcp-shape-1',
        ServiceName: 'mcp-shape',
        ServiceAddress: '127.0.0.1',
      },
      ...{
        ServicePort: 11_100,
        ServiceTags: ['mcp', 'test'],
        ServiceWeights: service.Weights,
        ServiceMeta: service.Meta,
      },
    });
    const local = (await request(url, 'agent/services')).json() as Record<string, object>;
    assert.partialDeepStrictEqual(local['mcp-shape-1'] ?? {}, service);
    assert.partialDeepStrictEqual((await request(url, 'agent/service/mcp-shape-1')).json(), service);
  },

  async 'an agent introduces itself and has a leader'(_, url) {
    const self = (await request(url, 'agent/self')).json() as {
      Config: Record<string, unknown>;
      Member: { Addr: string };
    };
    assert.equal(self.Config.Datacenter, 'dc1');
    assert.match(String(self.Config.Version), /^1\.\d+\.\d+/);
    assert.equal(self.Member.Addr, '127.0.0.1');
    assert.match(String((await request(url, 'status/leader')).json()), /^127\.0\.0\.1:\d+$/);
  },

  async 'a service without address, tags and checks has its node’s address and passes'(t, url) {
    await put(url, 'agent/service/register', { Name: 'mcp-plain' });
    let answer = await request(url, 'health/service/mcp-plain?passing');
    while (answer.text === '[]')
      answer = await request(url, `health/service/mcp-plain?passing&index=${answer.index}`);
    const consul = openConsul(t, url);
    const { promise, resolve, reject } = Promise.withResolvers<object[]>();
    consul.watchInstances('mcp-plain', resolve, reject);
    assert.partialDeepStrictEqual((await promise)[0] ?? {}, {
      ...{ id: 'mcp-plain', address: '127.0.0.1', port: 0, tags: [], meta: {}, status: 'passing' },
      weights: { passing: 1, warning: 1 },
    });
  },

  async 'checks take pass, warn, fail and update, and only passing instances are listed on demand'(_, url) {
    await put(url, 'agent/service/register', { Name: 'mcp-raw', Check: { TTL: '1h' } });
    for (const [verb, status] of [
      ['warn', 'warning'],
      ['fail', 'critical'],
      ['pass', 'passing'],
    ]) {
      assert.equal((await put(url, `agent/check/${verb}/service:mcp-raw?note=say%20${verb}`)).status, 200);
      const checks = (await request(url, 'agent/checks')).json() as Record<string, object>;
      assert.partialDeepStrictEqual(checks['service:mcp-raw'] ?? {}, {
        Status: status,
        Output: `say ${verb}`,
      });
    }
    let passing = await request(url, 'health/service/mcp-raw?passing');
    while (passing.text === '[]')
      passing = await request(url, `health/service/mcp-raw?passing&index=${passing.index}`);
    await put(url, 'agent/check/fail/service:mcp-raw');
    while (passing.text.trim() !== '[]')
      passing = await request(url, `health/service/mcp-raw?passing&index=${passing.index}`);
    const bogus = await put(url, 'agent/check/update/service:mcp-raw', { Status: 'bogus' });
    assert.deepEqual([bogus.status, bogus.text.trim()], [400, "Invalid check status: 'bogus'"]);
  },

  async 'a bad registration is refused with a reason'(_, url) {
    for (const [body, text] of REFUSED) {
      const answer = await put(url, 'agent/service/register', body);
      assert.equal(answer.status, 400, JSON.stringify(body));
      assert.ok(answer.text.startsWith(text), `${answer.text} is not ${text}`);
    }
  },

  async 'maintenance needs a known service and a yes or no'(_, url) {
    assert.equal((await put(url, 'agent/service/maintenance/nobody?enable=true')).status, 404);
    assert.equal((await put(url, 'agent/service/maintenance/nobody')).status, 400);
  },

  async 'the KV store compares and sets, lists, and deletes below a prefix'(_, url) {
    const key = (path: string) => `kv/contract/store/${path}`;
    assert.equal((await put(url, key('a?cas=1'), 'x')).json(), false);
    assert.equal((await put(url, key('a?cas=0'), 'x')).json(), true);
    assert.equal((await put(url, key('a?cas=0'), 'y')).json(), false);
    const [item] = (await request(url, key('a'))).json() as [{ ModifyIndex: number; Value: string }];
    assert.partialDeepStrictEqual(item, { Key: 'contract/store/a', Flags: 0, LockIndex: 0, Value: 'eA==' });
    assert.equal((await put(url, key(`a?cas=${item.ModifyIndex}`), 'y')).json(), true);
    assert.equal((await request(url, key('a?raw'))).text, 'y');
    await put(url, key('b'), '');
    const both = (await request(url, key('?recurse'))).json() as { Value: string | null }[];
    assert.deepEqual(
      both.map(({ Value }) => Value),
      ['eQ==', null],
    );
    assert.deepEqual((await request(url, key('?keys'))).json(), ['contract/store/a', 'contract/store/b']);

    const { index } = await request(url, key('?recurse'));
    await put(url, key('b'), '');
    assert.equal((await request(url, key('?recurse'))).index, index, 'an equal value moves no index');
    assert.equal((await request(url, key('b'), { method: 'DELETE' })).json(), true);
    const rest = await request(url, key('?recurse'));
    assert.ok(rest.index > index, 'a deletion moves the index of the list');
    await request(url, key('?recurse'), { method: 'DELETE' });
    const none = await request(url, key('?recurse'));
    assert.deepEqual([none.status, none.text, none.index > rest.index], [404, '', true]);
  },

  async 'deleting a shorter prefix does not move the index of a longer one'(_, url) {
    await put(url, 'kv/outer/inner/a', '1');
    await put(url, 'kv/outer/inner/b', '1');
    await request(url, 'kv/outer/inner/b', { method: 'DELETE' });
    const before = await request(url, 'kv/outer/inner/?recurse');
    await request(url, 'kv/outer/?recurse', { method: 'DELETE' });
    const answer = await request(url, 'kv/outer/inner/?recurse');
    // The trap that watches must survive: other data under the same index.
    assert.deepEqual([answer.status, answer.index], [404, before.index]);
  },
};

/** No run of the HTTP check falls into the test. */
const SLOW_HEALTH = { url: 'http://127.0.0.1:1/', intervalSeconds: 3600, timeoutSeconds: 1 };

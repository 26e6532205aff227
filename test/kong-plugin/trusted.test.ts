import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Discovery, KnownService } from '../../kong-plugin/discovery.ts';
import type { Prover } from '../../kong-plugin/prover.ts';
import { trustedOnly } from '../../kong-plugin/trusted.ts';
import type { Instance } from '../../mesh/consul.ts';

test('only an instance that has proven itself is passing; the others say why', () => {
  const { service, trusted, prove } = build(['a', 'passing'], ['b', 'passing'], ['c', 'critical']);
  prove('a', 'c');
  assert.deepEqual(states(trusted.find('shop')), [
    'a passing ',
    'b critical b is not asked',
    'c critical down',
  ]);
  assert.deepEqual(states(trusted.list()[0]), states(trusted.find('shop')));
  assert.deepEqual(states(service), ['a passing ', 'b passing ', 'c critical down'], 'as Consul says it');
  assert.equal(trusted.find('nope'), undefined);
});

test('a state that is none of passing is none of the prover’s: nothing makes it better', () => {
  const { trusted, prove } = build(['a', 'warning'], ['b', 'maintenance'], ['c', 'critical']);
  prove('a', 'b', 'c');
  assert.deepEqual(states(trusted.find('shop')), ['a warning down', 'b maintenance down', 'c critical down']);
});

test('what becomes known later shows, in both directions', () => {
  const { trusted, prove } = build(['a', 'passing']);
  assert.deepEqual(states(trusted.find('shop')), ['a critical a is not asked']);
  prove('a');
  assert.deepEqual(states(trusted.find('shop')), ['a passing ']);
  prove();
  assert.deepEqual(states(trusted.find('shop')), ['a critical a is not asked']);
});

test('the reason is that of now, also when nothing else has changed', () => {
  const { trusted, say } = build(['a', 'passing']);
  assert.deepEqual(states(trusted.find('shop')), ['a critical a is not asked']);
  say('it has a wrong key');
  assert.deepEqual(states(trusted.find('shop')), ['a critical it has a wrong key']);
});

test('equal lists stay the same array: choices are made once for each', () => {
  const { service, trusted, prove } = build(['a', 'passing'], ['b', 'passing']);
  prove('a');
  const first = trusted.find('shop')?.instances;
  assert.equal(trusted.find('shop')?.instances, first);
  assert.equal(trusted.list()[0]?.instances, first);
  prove('a', 'b');
  assert.equal(trusted.find('shop'), service, 'and nothing is copied when all are trusted');
});

test('it is ready when Consul has answered, and after that each instance was asked', async () => {
  const { trusted, order } = build(['a', 'passing']);
  await trusted.ready(1000);
  assert.deepEqual(order, ['discovery 1000', 'prover 1000']);
});

function build(...states: [id: string, status: Instance['status']][]) {
  const instances = states.map(([id, status], i) => ({
    id,
    service: 'mcp-shop',
    node: 'host',
    address: '10.0.0.1',
    port: i + 1,
    tags: ['mcp'],
    meta: { mcp_server: 'shop' },
    weights: { passing: 1, warning: 1 },
    status,
    reason: status === 'passing' ? '' : 'down',
  }));
  const service: KnownService = { name: 'shop', definition: {}, instances };
  const order: string[] = [];
  const discovery: Discovery = {
    ready: async ms => void order.push(`discovery ${ms}`),
    find: name => (name === 'shop' ? service : undefined),
    list: () => [service],
    age: () => 0,
    close: () => {},
  };
  let proven = new Set<string>();
  let reason: string | undefined;
  const prover: Prover = {
    update: () => {},
    isProven: ({ id }) => proven.has(id),
    reason: ({ id }) => reason ?? `${id} is not asked`,
    ready: async ms => void order.push(`prover ${ms}`),
    close: () => {},
  };
  const trusted = trustedOnly(discovery, prover);
  return {
    service,
    trusted,
    order,
    prove(...ids: string[]) {
      proven = new Set(ids);
      trusted.changed();
    },
    say(text: string) {
      reason = text;
    },
  };
}

function states(service: KnownService | undefined): string[] | undefined {
  return service?.instances.map(({ id, status, reason }) => `${id} ${status} ${reason}`);
}

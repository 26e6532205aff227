import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Ejection } from '../../kong-plugin/ejection.ts';
import type { Instance } from '../../mesh/consul.ts';

function instanceOf(id: string, meta: Record<string, string> = {}): Instance {
  return {
    id,
    service: 'mcp-a',
    node: 'host',
    address: '10.0.0.1',
    port: 1,
    tags: ['mcp'],
    meta: { failure_threshold: '3', recovery_timeout: '60', started_at: 'monday', ...meta },
    weights: { passing: 1, warning: 1 },
    status: 'passing',
    reason: '',
  };
}

/** Four instances, or those that are given. */
function setUp(t: TestContext, instances = ['a', 'b', 'c', 'd'].map(id => instanceOf(id))) {
  const changes: string[] = [];
  const ejection = new Ejection({
    onChange: (id, state, reason) => changes.push(`${id} ${state} ${reason}`),
  });
  t.after(() => ejection.close());
  ejection.retain(instances);
  const ids = () => ejection.admit(instances).map(({ id }) => id);
  const fail = async (id: string, times = 3) => {
    for (let i = 0; i < times; i += 1) ejection.learn('call', id, 'the connection failed');
    await pause(1);
  };
  const halfOpen = async (id: string) => {
    while (ejection.state(id).state !== 'half-open') await pause(2);
  };
  return { ejection, instances, ids, fail, halfOpen, changes };
}

test('an instance that fails call after call is taken out, with the reason in words', async t => {
  const { ejection, ids, fail, changes } = setUp(t);
  await fail('b', 2);
  ejection.learn('call', 'b', undefined);
  await fail('b', 2);
  assert.deepEqual(ids(), ['a', 'b', 'c', 'd'], 'a success between failures starts the count anew');
  await fail('b', 1);
  assert.deepEqual(ids(), ['a', 'c', 'd']);
  const reason = '3 failures in a row, the last: the connection failed';
  assert.deepEqual(ejection.state('b'), { state: 'open', reason });
  assert.deepEqual(changes, [`b open ${reason}`]);
});

test('what is left stays the same array until the set changes: strategies keep their state by it', async t => {
  const { ejection, instances, fail } = setUp(t);
  assert.equal(ejection.admit(instances), instances);
  await fail('a');
  const left = ejection.admit(instances);
  assert.notEqual(left, instances);
  assert.equal(ejection.admit(instances), left);
  await fail('b');
  assert.notEqual(ejection.admit(instances), left);
});

test('when more than half would go, none does', async t => {
  const { ids, fail } = setUp(t);
  await fail('a');
  await fail('b');
  assert.deepEqual(ids(), ['c', 'd']);
  await fail('c');
  assert.deepEqual(ids(), ['a', 'b', 'c', 'd']);
});

test('the only instance stays', async t => {
  const { ids, fail, ejection } = setUp(t, [instanceOf('a')]);
  await fail('a');
  assert.equal(ejection.state('a').state, 'open');
  assert.deepEqual(ids(), ['a']);
});

test('after recovery_timeout one call is its probe, and no second one', async t => {
  const { ejection, instances, ids, fail, halfOpen } = setUp(t, [
    instanceOf('a', { recovery_timeout: '0.02' }),
    instanceOf('b'),
    instanceOf('c'),
  ]);
  await fail('a');
  assert.equal(ejection.probe(instances, 'early', 1000), undefined);
  await halfOpen('a');
  assert.equal(ejection.probe(instances, 'p1', 1000)?.id, 'a');
  assert.equal(ejection.probe(instances, 'p2', 1000), undefined);
  assert.deepEqual(ids(), ['b', 'c'], 'others stay away while it is tried');
  ejection.learn('p1', 'a', 'it answered 502');
  await pause(1);
  assert.deepEqual(ejection.state('a'), {
    state: 'open',
    reason: 'tried again, and failed: it answered 502',
  });

  await halfOpen('a');
  assert.equal(ejection.probe(instances, 'p3', 1000)?.id, 'a');
  ejection.learn('p3', 'a', undefined);
  await pause(1);
  assert.deepEqual(ejection.state('a'), { state: 'closed', reason: '' });
  assert.equal(ejection.admit(instances), instances);
});

test('a probe whose outcome nobody tells has failed at its deadline, or when its call is over', async t => {
  const { ejection, instances, fail, halfOpen } = setUp(t, [
    instanceOf('a', { recovery_timeout: '0.02' }),
    instanceOf('b'),
  ]);
  await fail('a');
  for (const end of [() => {}, () => ejection.release('probe')]) {
    await halfOpen('a');
    assert.equal(ejection.probe(instances, 'probe', 10)?.id, 'a');
    end();
    while (ejection.state('a').state !== 'open') await pause(2);
    assert.match(
      ejection.state('a').reason,
      /^tried again, and failed: (no answer within 10 ms|the call ended)/,
    );
  }
  ejection.learn('probe', 'a', undefined);
  await pause(1);
  assert.notEqual(ejection.state('a').state, 'closed', 'an answer that comes late changes nothing');
});

test('traffic that has to ignore an ejection does not end it', async t => {
  const { ejection, fail } = setUp(t, [instanceOf('a')]);
  await fail('a');
  ejection.learn('call', 'a', undefined);
  await pause(1);
  assert.equal(ejection.state('a').state, 'open');
});

test('an instance that says that its own breaker is open goes at once', async t => {
  const { ejection, ids } = setUp(t);
  ejection.trip('call', 'd', 'its own breaker is open');
  assert.deepEqual(ids(), ['a', 'b', 'c']);
  assert.deepEqual(ejection.state('d'), { state: 'open', reason: 'its own breaker is open' });
});

test('another run under the same id starts without a record; what left is forgotten', async t => {
  const { ejection, instances, fail } = setUp(t);
  await fail('a');
  await fail('b');
  ejection.retain(instances);
  assert.equal(ejection.state('a').state, 'open');
  ejection.retain([instanceOf('a', { started_at: 'tuesday' })]);
  assert.equal(ejection.state('a').state, 'closed');
  assert.equal(ejection.state('b').state, 'closed');
});

test('nonsense in Consul is no threshold and no timer', async t => {
  const meta = { failure_threshold: '-1', recovery_timeout: '1e300' };
  const { ejection, fail } = setUp(t, [instanceOf('a', meta)]);
  await fail('a', 4);
  assert.equal(ejection.state('a').state, 'closed');
  await fail('a', 1);
  assert.equal(ejection.state('a').state, 'open');
});

import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import { workerSettings } from '../../mesh/settings.ts';
import type { WireText } from '../../mesh/wire-text.ts';
import { ServerPool } from '../../workers/pool.ts';
import { Tenants } from '../../workers/tenants.ts';
import { ready, scriptedService, silentLog, startTestWorker, toolCall } from './helpers.ts';

const { handshakeTimeoutMs } = workerSettings({});
const handlers = { onNotification: () => {} };
const pidOf = async (server: { call(r: RpcRequest, o: { timeoutMs: number }): Promise<WireText> }) => {
  const request = readMessage(JSON.stringify(toolCall(1, 'pid'))) as RpcRequest;
  return JSON.parse((await server.call(request, { timeoutMs: 5000 })).toString()).result.content[0]
    .text as string;
};

describe('isolation: session', () => {
  test('each session has a server of its own, for as long as it lasts', async t => {
    const worker = await startTestWorker(t, scriptedService('', { isolation: 'session' }));
    await ready(worker);
    const [a, b] = [await worker.connect(), await worker.connect()];
    const pid = async (call: typeof a) => (await call(toolCall(1, 'pid'))).json.result.content[0].text;
    assert.equal(await pid(a), await pid(a));
    assert.notEqual(await pid(a), await pid(b));
  });

  test('a server that dies takes its session with it, and no other', async t => {
    const worker = await startTestWorker(t, scriptedService('', { isolation: 'session' }));
    await ready(worker);
    const [a, b] = [await worker.connect(), await worker.connect()];
    assert.equal((await a(toolCall(1, 'crash'))).json.error.data.code, 'child_crashed');
    assert.equal((await a(toolCall(2, 'echo'))).status, 404);
    assert.equal((await b(toolCall(2, 'echo', { text: 'fine' }))).json.result.content[0].text, 'fine');
  });
});

describe('the pool', () => {
  const poolOf = (t: TestContext, pool: object) => {
    const service = scriptedService('', { isolation: 'session' });
    const made = new ServerPool({
      service: { ...service, pool: { ...service.pool, ...pool } },
      log: silentLog,
      handshakeTimeoutMs,
    });
    t.after(() => made.stop());
    return made;
  };

  test('has its spares started before anybody comes', async t => {
    const pool = poolOf(t, { spares: 2 });
    pool.warm();
    assert.equal(pool.size, 2);
    await pool.open('s', { prefer: 'legacy', handlers });
    assert.equal(pool.size, 3);
  });

  test('never holds more than its limit, and says so', async t => {
    const pool = poolOf(t, { spares: 0, max: 2 });
    await pool.open('a', { prefer: 'legacy', handlers });
    await pool.open('b', { prefer: 'legacy', handlers });
    await assert.rejects(pool.open('c', { prefer: 'legacy', handlers }), { code: 'queue_full' });
    pool.close('a');
    assert.ok(await pool.open('c', { prefer: 'legacy', handlers, watched: () => true }));
    // Nobody listens on b and nobody has used it for a while: its client has most likely left without a word.
    await pause(1100);
    assert.ok(await pool.open('d', { prefer: 'legacy', handlers }));
    assert.equal(pool.get('b'), undefined);
    assert.ok(pool.get('c'));
  });

  test('a leased server serves one call and ends', async t => {
    const pool = poolOf(t, { spares: 0 });
    const wanted = { prefer: 'legacy', handlers } as const;
    const first = await pool.lease(wanted);
    const pid = await pidOf(first.connection);
    first.release();
    const next = await pool.lease(wanted);
    assert.notEqual(await pidOf(next.connection), pid);
    assert.equal(pool.size, 1);
  });
});

test('isolation: principal gives each caller a server of their own, and the same one again', async t => {
  const tenants = new Tenants({
    service: scriptedService('', { isolation: 'principal' }),
    log: silentLog,
    handshakeTimeoutMs,
    onState: () => {},
  });
  tenants.primary.server.start();
  t.after(() => tenants.stop());
  const [alice, bob] = await Promise.all(['alice', 'bob'].map(name => tenants.of(name)));
  assert.notEqual(await pidOf(alice!.server), await pidOf(bob!.server));
  assert.equal(await tenants.of('alice'), alice);
});

test('isolation: shared gives everybody the same', async t => {
  const tenants = new Tenants({
    service: scriptedService(),
    log: silentLog,
    handshakeTimeoutMs,
    onState: () => {},
  });
  t.after(() => tenants.stop());
  assert.equal(await tenants.of('alice'), await tenants.of('bob'));
  await pause(0);
});

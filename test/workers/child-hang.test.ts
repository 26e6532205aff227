import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { createHangWatch } from '../../workers/hang-watch.ts';
import { eventually, HOSTILE, isAlive, startServer, unrulyService } from './child-helpers.ts';

const TIMES = { quietMs: 1000, answerMs: 1000 };

/** A watch whose time passes by hand. */
function watch(t: TestContext) {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const seen = { pings: 0, hung: '', asking: false };
  const hang = createHangWatch({
    times: TIMES,
    ping: () => {
      seen.pings += 1;
    },
    isAsking: () => seen.asking,
    onHung: reason => {
      seen.hung += reason;
    },
  });
  return { hang, seen, pass: (ms: number) => t.mock.timers.tick(ms) };
}

describe('the rule', () => {
  test('nothing is sent to a server that owes nothing, however long', t => {
    const { hang, seen, pass } = watch(t);
    pass(60_000);
    hang.began(100)(true);
    pass(60_000);
    assert.deepEqual([seen.pings, seen.hung], [0, '']);
  });

  test('nothing is sent to a server that talks while it works', t => {
    const { hang, seen, pass } = watch(t);
    hang.began(60_000);
    for (let second = 0; second < 100; second += 1) {
      pass(900);
      hang.heard();
    }
    assert.deepEqual([seen.pings, seen.hung], [0, '']);
  });

  test('a silent one is pinged once, and the answer settles it until the next silence', t => {
    const { hang, seen, pass } = watch(t);
    hang.began(500);
    pass(1900);
    assert.equal(seen.pings, 1);
    hang.heard();
    pass(1000);
    assert.equal(seen.pings, 1);
    pass(200);
    assert.equal(seen.pings, 2);
    assert.equal(seen.hung, '');
  });

  test('without an answer it is hung, once', t => {
    const { hang, seen, pass } = watch(t);
    hang.began(500);
    pass(1950);
    assert.equal(seen.hung, '');
    pass(10_000);
    assert.equal(seen.hung, 'is hung (silent for 2 s, and no answer to a ping)');
  });

  test('not before every call that it had before the ping could have ended, the given-up ones, too', t => {
    const { hang, seen, pass } = watch(t);
    hang.began(5000)(false);
    hang.began(100);
    pass(4950);
    assert.deepEqual([seen.pings, seen.hung], [1, '']);
    pass(100);
    assert.match(seen.hung, /^is hung/);
  });

  test('calls after the ping do not put the verdict off', t => {
    const { hang, seen, pass } = watch(t);
    hang.began(500);
    pass(1050);
    assert.equal(seen.pings, 1);
    hang.began(60_000);
    pass(1050);
    assert.match(seen.hung, /^is hung/);
  });

  test('its time stands still while it waits for us', t => {
    const { hang, seen, pass } = watch(t);
    hang.began(500);
    seen.asking = true;
    pass(60_000);
    assert.deepEqual([seen.pings, seen.hung], [0, '']);
    seen.asking = false;
    pass(2100);
    assert.match(seen.hung, /^is hung/);
  });
});

describe('real servers', () => {
  const times = { quietMs: 200, answerMs: 200 };

  test('a stopped one (SIGSTOP) is ended and started again; its calls say why', async t => {
    const { server, until, call } = startServer(t, { ...unrulyService(), timeout_ms: 500 }, times);
    await until('ready');
    const { pid = 0 } = server;
    process.kill(pid, 'SIGSTOP');
    const before = assert.rejects(call('echo', { text: 'x' }, 500), /no answer within 500 ms|child is hung/);
    await new Promise(resolve => setTimeout(resolve, 300));
    const after = assert.rejects(call('echo', { text: 'x' }), /child is hung/);
    assert.match(await until('down'), /^child is hung \(silent for \d+ s, and no answer to a ping\)$/);
    await Promise.all([before, after]);
    await eventually(() => !isAlive(pid));
    await until('ready');
    assert.equal(await call('echo', { text: 'back' }), 'back');
    assert.equal(server.stats.restarts.hung, 1);
  });

  test('one that is busy in one long call, and can answer no ping, is left alone for the time that it has', async t => {
    const { server, until, call } = startServer(t, { ...unrulyService(), timeout_ms: 3000 }, times);
    await until('ready');
    assert.equal(await call('block', { ms: 1500 }), 'blocked');
    assert.equal(server.stats.generation, 1);
  });

  test('also when the caller has no more patience', async t => {
    const { server, until, call } = startServer(t, { ...unrulyService(), timeout_ms: 3000 }, times);
    await until('ready');
    await assert.rejects(call('block', { ms: 1500 }, 100), /no answer within 100 ms/);
    assert.equal(await call('echo', { text: 'done' }), 'done');
    assert.equal(server.stats.generation, 1);
  });

  test('one that only waits answers the pings, and the pings end with the wait', async t => {
    const { server, until, call } = startServer(t, unrulyService(), times);
    await until('ready');
    assert.equal(await call('slow', { ms: 1100 }), 'slept');
    const pings = Number(await call('pings'));
    assert.ok(pings >= 2 && pings <= 5, String(pings));
    assert.deepEqual([server.inFlight, server.stats.generation], [0, 1]);
    await new Promise(resolve => setTimeout(resolve, 700));
    assert.equal(Number(await call('pings')), pings);
  });

  test('a modern one, which knows no ping, answers what it is asked instead', async t => {
    const service = unrulyService({ ERA: 'modern' }, { args: [HOSTILE], timeout_ms: 300 });
    const { server, until, call } = startServer(t, service, times);
    await until('ready');
    assert.equal(server.info?.era, 'modern');
    await assert.rejects(call('slow', { ms: 1500 }, 300), /no answer within 300 ms/);
    await new Promise(resolve => setTimeout(resolve, 1000));
    assert.deepEqual([server.state, server.stats.generation], ['ready', 1]);
  });
});

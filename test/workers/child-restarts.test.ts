import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { Service } from '../../mesh/registry.ts';
import { Recycling } from '../../workers/recycling.ts';
import { Restarts } from '../../workers/restarts.ts';
import { eventually, isAlive, startServer, UNRULY, unrulyService } from './child-helpers.ts';

const MB = 1024 * 1024;
const recycled = (rules: Partial<Service['recycle']>, overrides: Partial<Service> = {}) => {
  const service = unrulyService({}, overrides);
  return { ...service, recycle: { ...service.recycle, ...rules } };
};

describe('when a server that ended is started again', () => {
  const middle = () => 0.5;

  test('the waits double, and one long life makes them short again', () => {
    const restarts = new Restarts(middle);
    const waits = [0, 0, 0].map(uptime => restarts.ended('exit', uptime));
    assert.deepEqual(waits, [500, 1000, 2000]);
    assert.equal(restarts.ended('exit', 59_999), 4000);
    assert.equal(restarts.ended('exit', 60_000), 500);
    assert.equal(restarts.failures, 1);
  });

  test('after ten failures in a row it is parked, and tried every five minutes', () => {
    const restarts = new Restarts(middle);
    const waits = Array.from({ length: 10 }, () => restarts.ended('exit', 0));
    assert.deepEqual(waits.slice(-3), [30_000, 30_000, 300_000]);
    assert.equal(
      restarts.explain('child exits with 3; last words: no database'),
      'parked after 10 failed starts; child exits with 3; last words: no database; it is tried again every 5 minutes, or at once by a restart',
    );
    assert.equal(restarts.ended('handshake', 0), 300_000);
    assert.match(restarts.explain(''), /^parked after 11 failed starts/);
    assert.equal(restarts.ended('exit', 60_000), 500);
    assert.equal(restarts.explain('child exits with 1'), 'child exits with 1');
  });

  test('the waits of many servers spread', () => {
    const low = new Restarts(() => 0).ended('exit', 0);
    const high = new Restarts(() => 1).ended('exit', 0);
    assert.deepEqual([low, high], [375, 625]);
  });

  test('a server in a crash loop says so, is not tried again soon, and callers learn when', async t => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { server, until } = startServer(t, unrulyService({}, { command: '/nowhere/server' }));
    for (let failure = 1; failure <= 10; failure += 1) {
      await until('down');
      t.mock.timers.tick(failure < 10 ? 40_000 : 0);
    }
    assert.match(
      server.reason,
      /^parked after 10 failed starts; child cannot be started \(command not found/,
    );
    assert.deepEqual([server.stats.parked, server.stats.restarts.spawn], [true, 10]);
    const refused = await server.ask('tools/list', {}, { timeoutMs: 1000 }).catch(error => error);
    assert.equal(refused.code, 'child_unavailable');
    assert.ok(refused.retryAfterMs > 200_000, String(refused.retryAfterMs));
    t.mock.timers.tick(200_000);
    assert.equal(server.stats.generation, 10);
    const again = until('down');
    t.mock.timers.tick(200_000);
    assert.match(await again, /^parked after 11 failed starts/);
  });
});

describe('when a server is replaced', () => {
  const rules = { max_calls: 10, max_age_s: 100, max_rss_mb: 50 };
  const young = { calls: 9, ageMs: 89_000, rssBytes: 50 * MB };
  const cases = [
    { desc: 'not before', run: young, want: undefined },
    { desc: 'by calls', run: { ...young, calls: 10 }, want: '10 calls (recycle.max_calls)' },
    {
      desc: 'by age, up to a tenth early',
      run: { ...young, ageMs: 90_000 },
      want: '90 s old (recycle.max_age_s)',
    },
    { desc: 'by memory', run: { ...young, rssBytes: 51 * MB }, want: '51 MB (recycle.max_rss_mb 50)' },
    {
      desc: 'not by memory while it is new',
      run: { ...young, ageMs: 59_000, rssBytes: 99 * MB },
      want: undefined,
    },
  ];
  for (const { desc, run, want } of cases) {
    test(desc, () => assert.equal(new Recycling(rules, () => 1).reason(run), want));
  }

  test('0 is never', () => {
    const never = new Recycling({ max_calls: 0, max_age_s: 0, max_rss_mb: 0 });
    assert.equal(never.reason({ calls: 1e9, ageMs: 1e12, rssBytes: 1e12 }), undefined);
  });
});

describe('a replacement', () => {
  test('fails no call, however many are in the old one, and leaves nothing of it', async t => {
    const { server, until, call } = startServer(t, recycled({ max_calls: 40 }));
    await until('ready');
    const pids = new Set<number>();
    const caller = async (number: number) => {
      for (let turn = 0; turn < 25; turn += 1) {
        await call('slow', { ms: (number * 7 + turn * 13) % 60 });
        pids.add(Number(await call('pid')));
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, number) => caller(number)));
    assert.ok(pids.size >= 3, String(pids.size));
    assert.equal(server.restarts, server.stats.restarts.recycle);
    assert.ok(server.restarts >= 2, String(server.restarts));
    await eventually(() => [...pids].filter(isAlive).length === 1);
    assert.equal(server.inFlight, 0);
  });

  test('is up before the old one goes, which ends its own calls first', async t => {
    const { server, until, call } = startServer(t, recycled({ max_calls: 2 }));
    await until('ready');
    const old = Number(await call('pid'));
    const states: string[] = [];
    const slow = call('slow', { ms: 800 });
    const switched = until('ready');
    void until('down').then(() => states.push('down'));
    await switched;
    assert.notEqual(server.pid, old);
    assert.equal(Number(await call('pid')), server.pid);
    assert.equal(isAlive(old), true);
    assert.equal(server.inFlight, 1);
    assert.equal(await slow, 'slept');
    await eventually(() => !isAlive(old));
    assert.deepEqual(states, []);
  });

  test('that does not come up leaves the old one where it is', async t => {
    const { service, broken, mend } = breakable(t, recycled({ max_calls: 1 }));
    const { server, until, call } = startServer(t, service);
    await until('ready');
    const { pid } = server;
    broken();
    assert.equal(await call('echo', { text: 'a' }), 'a');
    await eventually(() => server.stderrTail().some(line => line.startsWith('mcp-mesh: run 2 is over')));
    assert.equal(await call('echo', { text: 'b' }), 'b');
    assert.deepEqual([server.state, server.pid, server.restarts], ['ready', pid, 0]);
    mend();
  });

  test('that is on its way when the old one crashes takes its place', async t => {
    const { server, until, call } = startServer(t, recycled({ max_calls: 1 }));
    await until('ready');
    const crashed = assert.rejects(call('exit', { code: 9 }), /child exits with 9/);
    assert.equal(server.stats.generation, 2);
    await until('down');
    await crashed;
    assert.equal(server.state, 'starting');
    await until('ready');
    assert.equal(server.stats.generation, 2);
    assert.deepEqual([server.stats.restarts.exit, server.stats.restarts.recycle], [1, 0]);
  });
});

describe('an event of an old run does not touch a newer one', () => {
  test('its late exit, with calls in it', async t => {
    const { server, until, call } = startServer(t, recycled({ max_calls: 2 }));
    await until('ready');
    const old = Number(await call('pid'));
    const switched = until('ready');
    const doomed = call('exit-later', { ms: 600, code: 5 });
    await switched;
    assert.equal(isAlive(old), true);
    await assert.rejects(doomed, /child exits with 5/);
    assert.deepEqual([server.state, server.reason, server.restarts], ['ready', '', 1]);
    assert.equal(await call('echo', { text: 'new' }), 'new');
    // Longer than the longest wait before a first restart: nothing was scheduled for the old one.
    await new Promise(resolve => setTimeout(resolve, 800));
    assert.equal(server.stats.generation, 2);
  });

  test('a stop during a replacement ends all of them', async t => {
    const { server, until, call } = startServer(t, recycled({ max_calls: 2 }));
    await until('ready');
    const old = Number(await call('pid'));
    const switched = until('ready');
    const silent = assert.rejects(call('silent'), /child/);
    await switched;
    const pids = [old, server.pid ?? 0];
    const third = call('pid').then(() => call('pid'));
    await third;
    const successor = server.stats.generation;
    assert.equal(successor, 3);
    await server.stop();
    await silent;
    assert.deepEqual(pids.map(isAlive), [false, false]);
    await new Promise(resolve => setTimeout(resolve, 300));
    assert.deepEqual([server.state, server.stats.generation], ['stopped', 3]);
  });
});

describe('stderr', () => {
  test('the last lines of all runs are kept, clean, with how each run ended', async t => {
    const { server, until, call } = startServer(t, unrulyService());
    await until('ready');
    await call('say', { text: '\u001b[31mred\u001b[0m \u0007bell\r\n\n\u202eevil\nno newline at the end' });
    await assert.rejects(call('exit', { code: 4 }));
    await eventually(() => server.stderrTail().length === 4);
    assert.deepEqual(server.stderrTail(), [
      'red  bell',
      ' evil',
      'no newline at the end',
      'mcp-mesh: run 1 is over: child exits with 4',
    ]);
    assert.equal(server.stats.lastError, 'child exits with 4; last words: no newline at the end');
    await until('ready');
    await call('say', { text: 'hello again\n' });
    await eventually(() => server.stderrTail().at(-1) === 'hello again');
  });

  test('is bounded in lines, bytes, and the length of one line', async t => {
    const { server, until, call } = startServer(t, unrulyService());
    await until('ready');
    await call('say', { text: `${'x'.repeat(1_000_000)}\n${'short\n'.repeat(500)}last\n` });
    await eventually(() => server.stderrTail().at(-1) === 'last');
    assert.equal(server.stderrTail().length, 100);
    await call('say', { text: `${'y'.repeat(4000)}\n`.repeat(50) });
    await call('say', { text: 'end\n' });
    await eventually(() => server.stderrTail().at(-1) === 'end');
    const size = server.stderrTail().join('').length;
    assert.ok(size <= 64 * 1024, String(size));
  });
});

/** The service behind a script that fails as long as a file is there. */
function breakable(t: TestContext, service: Service) {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-child-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const flag = join(folder, 'broken');
  const script = `[ -e "${flag}" ] && exit 3; exec "${process.execPath}" "${UNRULY}"`;
  return {
    service: { ...service, command: 'sh', args: ['-c', script] },
    broken: () => writeFileSync(flag, ''),
    mend: () => existsSync(flag) && rmSync(flag),
  };
}

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { isAlive } from '../../e2e/mesh-process.ts';
import { callAt, scripted, startTestFleet, until } from './helpers.ts';

/** Ports that nothing in this project, and no ephemeral port, uses. */
const RANGE = [21_310, 21_313] as const;

describe('a fleet', () => {
  test('starts what the registry asks for; every instance passes and tells how it is', async t => {
    const mesh = await startTestFleet(t, [
      scripted('one'),
      scripted('two', { instances: 2, port_range: RANGE }),
    ]);
    await mesh.ready('one', 1);
    const rows = await mesh.ready('two', 2);
    await mesh.passing('two', 2);
    assert.equal(await callAt(rows[0], 'echo', { text: 'hi' }), 'hi');
    const [row] = await until('a load report', () => {
      const found = mesh.rows('two').filter(({ p50_ms }) => p50_ms !== null);
      return found.length > 0 && found;
    });
    assert.ok(row);
    assert.deepEqual(
      { ...row, id: '', pid: 0, rss_bytes: 0, p50_ms: 0, p95_ms: 0, uptime_s: 0, address: '' },
      {
        service: 'two',
        slot: 'two#0',
        id: '',
        address: '',
        pid: 0,
        state: 'ready',
        reason: '',
        era: 'legacy',
        in_flight: 0,
        queue: 0,
        p50_ms: 0,
        p95_ms: 0,
        rss_bytes: 0,
        restarts: 0,
        server_restarts: 0,
        breaker: 'closed',
        uptime_s: 0,
        last_error: null,
      },
    );
    assert.equal(row.address, `127.0.0.1:${RANGE[0]}`);
    assert.match(row.id ?? '', new RegExp(`^mcp-two-.*-${RANGE[0]}$`));
    assert.ok((row.rss_bytes ?? 0) > 50_000_000, 'worker and server');
  });

  test('a worker that is killed comes back at its port, under its id; its server does not outlive it', async t => {
    const mesh = await startTestFleet(t, [scripted('one')], { times: { restartFirstMs: 1000 } });
    const [before] = await mesh.ready('one', 1);
    await mesh.passing('one', 1);
    const server = Number(await callAt(before, 'pid'));
    assert.ok(isAlive(server));
    process.kill(before?.pid ?? 0, 'SIGKILL');
    await until('word of it in Consul', async () => {
      const response = await fetch(`${mesh.consulUrl}/v1/health/service/mcp-one`);
      return /"worker was ended by SIGKILL"/.test(await response.text());
    });
    const after = await until('another worker', () => {
      const [row] = mesh.rows('one');
      return row?.state === 'ready' && row.pid !== before?.pid && row;
    });
    assert.deepEqual([after.id, after.address, after.restarts], [before?.id, before?.address, 1]);
    assert.match(after.last_error ?? '', /^worker was ended by SIGKILL$/);
    await until('end of the server', () => !isAlive(server));
  });

  test('a worker that stands still is killed and started again', async t => {
    const mesh = await startTestFleet(t, [scripted('one')], { times: { silentMs: 2000 } });
    const [before] = await mesh.ready('one', 1);
    process.kill(before?.pid ?? 0, 'SIGSTOP');
    const after = await until('another worker', () => {
      const [row] = mesh.rows('one');
      return row?.state === 'ready' && row.pid !== before?.pid && row;
    });
    assert.equal(after.last_error, 'worker told nothing for 2 s and was killed');
  });

  test('an instance that is drained stays away until it is restarted', async t => {
    const mesh = await startTestFleet(t, [scripted('one', { instances: 2 })]);
    const [first] = await mesh.ready('one', 2);
    await mesh.passing('one', 2);
    await mesh.fleet.drain(first?.id ?? '');
    await mesh.passing('one', 1);
    assert.deepEqual(
      mesh.rows('one').map(({ state, pid }) => [state, pid === null]),
      [
        ['drained', true],
        ['ready', false],
      ],
    );
    mesh.write([scripted('one', { instances: 2, tags: ['new'] })]);
    const [, other] = mesh.rows('one');
    await until(
      'the rolling restart',
      () => mesh.rows('one')[1]?.pid !== other?.pid && mesh.rows('one')[1]?.pid,
    );
    assert.equal(mesh.rows('one')[0]?.state, 'drained', 'a reload is no order to bring it back');
    await mesh.fleet.restart({ instance: 'one#0' });
    const [again] = await mesh.ready('one', 2);
    assert.equal(again?.id, first?.id);
  });

  test('orders that make no sense say what would', async t => {
    const mesh = await startTestFleet(t, [
      scripted('search', { port_range: RANGE }),
      scripted('mail', { instances: { min: 1, max: 3 } }),
    ]);
    await assert.rejects(
      mesh.fleet.scale('serch', 1),
      /no service "serch"; did you mean "search"\?.*search, mail/,
    );
    await assert.rejects(
      mesh.fleet.scale('search', 5),
      /5 instances of search need 5 ports: widen port_range/,
    );
    await assert.rejects(mesh.fleet.scale('search', -1), /search can have 0 to 1000 instances, not -1/);
    await assert.rejects(mesh.fleet.scale('mail', 4), /mail can have 1 to 3 instances, not 4/);
    await assert.rejects(mesh.fleet.restart({ instance: 'mail#9' }), /no instance "mail#9"/);
    await assert.rejects(mesh.fleet.drain('nobody'), /no instance "nobody".*there are: /);
  });

  test('logs are the server’s last lines, by instance', async t => {
    const mesh = await startTestFleet(t, [scripted('broken', { env: { MODE: 'die' } })]);
    const lines = await until('words of the server', async () => {
      const { 'broken#0': found = [] } = await mesh.fleet.logs({ service: 'broken' });
      return found.some(line => line.includes('cannot open the database')) && found;
    });
    assert.ok(lines.length > 0);
  });

  test('logs have the words of servers that were there for one call', async t => {
    const mesh = await startTestFleet(t, [scripted('own', { isolation: 'session' })]);
    const [row] = await mesh.ready('own', 1);
    await callAt(row, 'crash');
    for (const words of ['about to crash', 'mcp-mesh: a server is over: child exits with']) {
      await until(words, async () => {
        const { 'own#0': found = [] } = await mesh.fleet.logs({ service: 'own' });
        return found.some(line => line.startsWith(words));
      });
    }
  });

  test('logs of a worker that is gone are what it wrote itself, until another one has more to tell', async t => {
    const mesh = await startTestFleet(t, [scripted('broken', { env: { MODE: 'die' } })], {
      times: { restartFirstMs: 3000 },
    });
    const row = await until('down', () => mesh.rows('broken').find(({ state }) => state === 'down'));
    process.kill(Number(row.pid), 'SIGKILL');
    await until('backoff', () => mesh.rows('broken').find(({ state }) => state === 'backoff'));
    const words = async () => (await mesh.fleet.logs({ service: 'broken' }))['broken#0'] ?? [];
    const last = await words();
    assert.equal(last.at(-1), 'mcp-mesh: worker was ended by SIGKILL');
    assert.match(last.join('\n'), /"stderr":\["cannot open the database"\]/);
    await until('words of the next server', async () => (await words()).includes('cannot open the database'));
  });
});

describe('what cannot start', () => {
  test('command not found: the instance is down with the reason and the cure, and Consul says so', async t => {
    const mesh = await startTestFleet(t, [{ name: 'lost', command: '/nowhere/server' }, scripted('fine')]);
    const row = await until('down', () => mesh.rows('lost').find(({ state }) => state === 'down'));
    assert.match(row.reason, /command not found.*check both in the registry/);
    await mesh.ready('fine', 1);
    let said = '';
    await until(
      'the reason in Consul',
      async () => {
        said = await (await fetch(`${mesh.consulUrl}/v1/health/service/mcp-lost`)).text();
        return /command not found/.test(said);
      },
      () => said,
    );
  });

  test('a server that exits at once: down, with its last words', async t => {
    const mesh = await startTestFleet(t, [scripted('broken', { env: { MODE: 'die' } })]);
    const row = await until('down', () => mesh.rows('broken').find(({ state }) => state === 'down'));
    assert.match(row.reason, /child exits with 3; last words: cannot open the database/);
  });

  test('a worker with bad settings is parked after some attempts, with the reason', async t => {
    const mesh = await startTestFleet(t, [scripted('one')], {
      worker: { MESH_DRAIN_IDLE_MS: 'soon' },
      times: { restartFirstMs: 1 },
    });
    const row = await until('parked', () => mesh.rows('one').find(({ state }) => state === 'parked'));
    assert.match(row.reason, /^worker exits with 1: .*MESH_DRAIN_IDLE_MS: "soon" is not a whole number/);
    assert.equal(row.restarts, 5);
    const { 'one#0': words = [] } = await mesh.fleet.logs({ service: 'one' });
    assert.match(words.at(0) ?? '', /^mcp-mesh worker: MESH_DRAIN_IDLE_MS: "soon"/);
    assert.match(words.at(-1) ?? '', /^mcp-mesh: worker exits with 1: /);
    assert.deepEqual(await mesh.fleet.setLogLevel({ service: 'one' }, 'debug'), { 'one#0': null });
  });

  test('a port range that others use: the instance that has none says so, and gets one when it is free', async t => {
    const [first, last] = [21_320, 21_321];
    const holder = createServer().listen(last, '127.0.0.1');
    t.after(() => holder.close());
    const mesh = await startTestFleet(t, [scripted('one', { instances: 2, port_range: [first, last] })]);
    const [row] = await until('an instance without a port', () => {
      const found = mesh.rows('one').filter(({ state }) => state === 'backoff' || state === 'parked');
      return found.length > 0 && found;
    });
    assert.match(
      row?.reason ?? '',
      /no port is free from 21320 to 21321: end what holds them, or widen port_range/,
    );
    await until('the other one', () => mesh.rows('one').some(({ state }) => state === 'ready'));
    await new Promise(resolve => holder.close(resolve));
    await mesh.ready('one', 2);
  });
});

describe('a reload', () => {
  test('adds, removes, scales and restarts what differs, and nothing else', async t => {
    const mesh = await startTestFleet(t, [
      scripted('same'),
      scripted('gone'),
      scripted('wider'),
      scripted('changed', { instances: 2 }),
    ]);
    for (const [name, count] of [
      ['same', 1],
      ['gone', 1],
      ['wider', 1],
      ['changed', 2],
    ] as const)
      await mesh.ready(name, count);
    const before = new Map(mesh.rows().map(({ slot, pid }) => [slot, pid]));
    mesh.write([
      scripted('same'),
      scripted('wider', { instances: 3 }),
      scripted('changed', { instances: 2, env: { NEW: '1' } }),
      scripted('new'),
    ]);
    await mesh.ready('new', 1);
    await mesh.ready('wider', 3);
    await until('an end of the service that is gone', () => mesh.rows('gone').length === 0);
    await until('other workers', () =>
      mesh.rows('changed').every(({ slot, pid }) => pid && pid !== before.get(slot)),
    );
    const [changed] = await mesh.ready('changed', 2);
    assert.equal(JSON.parse(await callAt(changed, 'env')).NEW, '1');
    const after = new Map(mesh.rows().map(({ slot, pid }) => [slot, pid]));
    assert.equal(after.get('same#0'), before.get('same#0'));
    assert.equal(after.get('wider#0'), before.get('wider#0'));
    assert.ok(!isAlive(before.get('gone#0') ?? 0));
    await mesh.passing('gone', 0);
  });

  test('a broken file changes nothing, is told of, and a worker that ends meanwhile comes back', async t => {
    const mesh = await startTestFleet(t, [scripted('one', { env: { KEPT: 'yes' } })]);
    const [before] = await mesh.ready('one', 1);
    mesh.write('version: 1\nmcp_services:\n  - name: one\n    comand: x\n');
    const error = await until('the error', () => mesh.fleet.status().registry.error ?? undefined);
    assert.match(error, /registry\.yaml:4: .*comand.*did you mean "command"/s);
    assert.equal(mesh.rows('one')[0]?.pid, before?.pid);
    process.kill(before?.pid ?? 0, 'SIGKILL');
    const after = await until('another worker', () => {
      const [row] = mesh.rows('one');
      return row?.state === 'ready' && row.pid !== before?.pid && row;
    });
    assert.equal(JSON.parse(await callAt(after, 'env')).KEPT, 'yes');
    mesh.write([scripted('one', { env: { KEPT: 'yes' } })]);
    await until('an end of the error', () => mesh.fleet.status().registry.error === null);
    assert.equal(mesh.rows('one')[0]?.pid, after.pid, 'it is what is in force');
  });

  test('a definition that does not work stops at the first instance; mended, it goes on', async t => {
    const mesh = await startTestFleet(t, [scripted('one', { instances: 3 })]);
    const before = await mesh.ready('one', 3);
    mesh.write([scripted('one', { instances: 3, env: { MODE: 'die' } })]);
    const rollout = await until('a rollout that waits', () => {
      const found = mesh.fleet.status().services[0]?.rollout;
      return found?.includes('cannot open the database') && found;
    });
    assert.match(rollout, /^waits for one#0: child exits with 3; last words: cannot open the database/);
    await pause(500);
    const pids = (rows: typeof before) => rows.map(({ pid }) => pid);
    assert.deepEqual(pids(mesh.rows('one')).slice(1), pids(before).slice(1));
    mesh.write([scripted('one', { instances: 3, env: { MODE: '' } })]);
    await until('other workers', () => mesh.rows('one').every(({ pid }, i) => pid && pid !== before[i]?.pid));
    await mesh.ready('one', 3);
  });
});

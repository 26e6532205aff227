import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { MeshError } from '../../mesh/errors.ts';
import type { Service } from '../../mesh/registry.ts';
import { createCgroup, sweepCgroups } from '../../workers/child/cgroup.ts';
import { eventually, isAlive, startServer, unrulyService } from './child-helpers.ts';
import { silentLog } from './helpers.ts';

const MB = 1024 * 1024;
const limited = (limits: Partial<Service['limits']>, env: Record<string, string> = {}) => {
  const service = unrulyService(env);
  return { ...service, limits: { ...service.limits, ...limits } };
};

describe('a server beyond a limit is ended, with the figures as the reason, and started again', () => {
  test('memory', async t => {
    const { server, until, call } = startServer(t, limited({ memory_mb: 200 }));
    await until('ready');
    // What it uses is looked at each second: it may be ended before it has all that it wants.
    call('hog', { mb: 320 }).catch(() => {});
    const waiting = call('silent').catch((error: unknown) => error);
    const reason = await until('down');
    assert.match(reason, /^child used (\d+) MB of 200 MB \(limits\.memory_mb\)$/);
    assert.ok(Number(/\d+/.exec(reason)?.[0]) > 200, reason);
    const error = await waiting;
    assert.ok(error instanceof MeshError);
    assert.deepEqual([error.code, error.message], ['child_crashed', reason]);
    await until('ready');
    assert.equal(server.stats.restarts.oom, 1);
    assert.equal(server.stats.lastError, reason);
  });

  test('memory of all its processes together', async t => {
    const { until, call } = startServer(t, limited({ memory_mb: 150 }));
    await until('ready');
    // Each of them is far below the limit.
    call('fork', { count: 3, mb: 60 }).catch(() => {});
    assert.match(await until('down'), /^child used \d+ MB of 150 MB/);
  });

  test('processes', async t => {
    const { server, until, call } = startServer(t, limited({ processes: 4 }));
    await until('ready');
    const pids = (await call('fork', { count: 3 })).split(',').map(Number);
    call('fork', { count: 3 }).catch(() => {});
    assert.match(await until('down'), /^child used \d processes of 4 \(limits\.processes\)$/);
    await eventually(() => !pids.some(isAlive));
    await until('ready');
    assert.equal(server.stats.restarts.processes, 1);
  });
});

test('a server within its limits stays, and what it uses is told', async t => {
  const { server, until, call } = startServer(t, limited({ memory_mb: 400, processes: 4 }));
  await until('ready');
  await call('hog', { mb: 64 });
  await call('fork', { count: 2, mb: 0 });
  await call('burn', { ms: 200 });
  await eventually(
    () => server.stats.processes === 3 && server.stats.cpuSeconds > 0.2,
    () => server.stats,
  );
  const { rssBytes, cpuSeconds, uptimeSeconds, generation, restarts, pid, parked, lastError } = server.stats;
  assert.ok(rssBytes > 64 * MB && rssBytes < 400 * MB, String(rssBytes));
  assert.ok(cpuSeconds < 60, String(cpuSeconds));
  assert.ok(uptimeSeconds > 0.2, String(uptimeSeconds));
  assert.deepEqual([generation, pid, parked, lastError], [1, server.pid, false, undefined]);
  assert.equal(Object.values(restarts).join(''), '00000000');
});

test('what processes share counts once', async t => {
  const { server, until, call } = startServer(t, limited({ memory_mb: 250 }));
  await until('ready');
  // Idle Node processes: some 40 MB each, most of it the program itself.
  await call('fork', { count: 8, mb: 0 });
  await eventually(() => server.stats.rssBytes > 300 * MB);
  await call('fork', { count: 1, mb: 0 });
  await eventually(() => server.stats.processes === 10 || server.state !== 'ready');
  assert.deepEqual([server.state, server.reason], ['ready', '']);
});

test('open files are bounded, never beyond what the worker itself may open', async t => {
  const some = startServer(t, limited({ open_files: 123 }));
  await some.until('ready');
  assert.equal(await some.call('ulimit'), '123');
  const many = startServer(t, limited({ open_files: 1_000_000_000 }));
  await many.until('ready');
  const hard = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  assert.equal(await many.call('ulimit'), hard);
});

describe('a cgroup of its own', () => {
  // The files of cgroup v2 in a plain folder: what the kernel does with them is its own affair.
  const base = mkdtempSync(join(tmpdir(), 'mesh-cgroup-'));
  const folder = join(base, 'mcp-mesh.1-2-3.4');
  const file = (name: string) => readFileSync(join(folder, name), 'utf8');

  test('gets the limits, the process, and goes', t => {
    t.after(() => rmSync(base, { recursive: true }));
    const cgroup = createCgroup(base, '1-2-3.4', limited({ memory_mb: 64, processes: 3 }), silentLog);
    assert.ok(cgroup);
    assert.deepEqual(['memory.max', 'memory.oom.group', 'pids.max'].map(file), [
      String(64 * MB),
      '1',
      String(3 * 32),
    ]);
    cgroup.add(4711);
    assert.equal(file('cgroup.procs'), '4711');
    assert.equal(cgroup.outOfMemory(), false);
    writeFileSync(join(folder, 'memory.events'), 'low 0\noom 2\noom_kill 1\n');
    assert.equal(cgroup.outOfMemory(), true);
    cgroup.kill();
    assert.equal(file('cgroup.kill'), '1');
    assert.equal(cgroup.remove(), false);
    rmSync(folder, { recursive: true });
    mkdirSync(folder);
    assert.equal(cgroup.remove(), true);
    assert.equal(existsSync(folder), false);
  });

  test('of a worker that is gone is ended and removed, and no other', t => {
    const groups = mkdtempSync(join(tmpdir(), 'mesh-cgroup-'));
    t.after(() => rmSync(groups, { recursive: true }));
    for (const name of ['mcp-mesh.dead', 'mcp-mesh.alive', 'mcp-mesh', 'system.slice'])
      mkdirSync(join(groups, name));
    sweepCgroups(groups, tag => tag === 'dead');
    // In a plain folder the file that kills is a file, which keeps the folder from going.
    assert.deepEqual(readdirSync(groups, { recursive: true }).sort(), [
      'mcp-mesh',
      'mcp-mesh.alive',
      'mcp-mesh.dead',
      'mcp-mesh.dead/cgroup.kill',
      'system.slice',
    ]);
  });

  test('that cannot be made is done without', () => {
    assert.equal(createCgroup('/proc/self', '1-2-3.4', limited({}), silentLog), undefined);
  });
});

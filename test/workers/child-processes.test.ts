import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sweepOrphans } from '../../workers/child/orphans.ts';
import { readProcess } from '../../workers/child/process-table.ts';
import {
  childrenOf,
  eventually,
  isAlive,
  startServer,
  UNRULY,
  unrulyService,
  wrappedService,
} from './child-helpers.ts';
import { silentLog } from './helpers.ts';

describe('a server behind a wrapper script', () => {
  for (const how of ['plain', 'background', 'deaf']) {
    test(`${how}: answers, and nothing is left when it is stopped`, async t => {
      const { server, until, call } = startServer(t, wrappedService(how));
      await until('ready');
      const pids = [server.pid ?? 0, Number(await call('pid'))];
      assert.notEqual(pids[0], pids[1]);
      await server.stop();
      assert.deepEqual(pids.map(isAlive), [false, false]);
    });
  }

  test('has its time to end well, although the script is gone at once', async t => {
    const folder = mkdtempSync(join(tmpdir(), 'mesh-child-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const goodbye = join(folder, 'goodbye');
    const { server, until, call } = startServer(
      t,
      wrappedService('background', { MODE: 'slow-exit', GOODBYE: goodbye }),
    );
    await until('ready');
    const pid = Number(await call('pid'));
    await server.stop();
    assert.equal(isAlive(pid), false);
    assert.equal(readFileSync(goodbye, 'utf8'), 'goodbye');
  });

  test('a server that ignores everything goes with its group', async t => {
    const { server, until, call } = startServer(t, wrappedService('deaf', { MODE: 'stubborn' }));
    await until('ready');
    const pid = Number(await call('pid'));
    await server.stop();
    assert.equal(isAlive(pid), false);
  });

  test('a script that does not wait is told so, and its server does not stay', async t => {
    const { server, until, call } = startServer(t, wrappedService('leaves', { MODE: 'stubborn' }));
    await until('ready');
    const pid = Number(await call('pid'));
    assert.match(
      await until('down'),
      /^child exits with 0 and leaves processes behind: the command must wait/,
    );
    await server.stop();
    assert.equal(isAlive(pid), false);
  });
});

describe('what a server has started ends with it', () => {
  test('what ignores SIGTERM in its group, and what left it, when it is stopped', async t => {
    const { server, until, call } = startServer(t, unrulyService());
    await until('ready');
    const pids = [Number(await call('helper')), Number(await call('escape'))];
    assert.deepEqual(pids.map(isAlive), [true, true]);
    await server.stop();
    assert.deepEqual(pids.map(isAlive), [false, false]);
  });

  for (const tool of ['helper', 'escape']) {
    test(`${tool}: when it crashes`, async t => {
      const { server, until, call } = startServer(t, unrulyService());
      await until('ready');
      const pid = Number(await call(tool));
      process.kill(server.pid ?? 0, 'SIGKILL');
      assert.equal(await until('down'), 'child was ended by SIGKILL');
      await eventually(() => !isAlive(pid));
    });
  }

  test('a helper without the environment is known by its parent', async t => {
    const { server, until, call } = startServer(t, unrulyService());
    await until('ready');
    const pid = Number(await call('escape-bare'));
    await eventually(() => server.stats.processes === 2);
    await server.stop();
    assert.equal(isAlive(pid), false);
  });

  test('its temp folder, with all that is in it', async t => {
    const { server, until, call } = startServer(t, unrulyService());
    await until('ready');
    const folder = await call('store', { text: 'x' });
    assert.equal(readFileSync(join(folder, 'stored'), 'utf8'), 'x');
    await server.stop();
    assert.equal(existsSync(folder), false);
  });
});

test('the registry’s own TMPDIR and an allowed HOME stay as they are', async t => {
  const { until, call } = startServer(t, unrulyService({ TMPDIR: '/somewhere' }));
  await until('ready');
  const env = JSON.parse(await call('env'));
  assert.deepEqual([env.TMPDIR, env.HOME], ['/somewhere', process.env.HOME]);
});

test('a system that refuses even to try is a reason, not a crash of the worker', async t => {
  const { until } = startServer(t, unrulyService({}, { args: ['x'.repeat(200_000)] }));
  assert.match(await until('down'), /^child cannot be started \(.*E2BIG/);
});

test('a command that ends at once without a word is told what it must do', async t => {
  const { until } = startServer(t, unrulyService({}, { command: 'true', args: [] }));
  assert.match(await until('down'), /^child exits with 0 and has said nothing: the command must stay/);
});

test('a server that closes stdout but lives is ended and started again', async t => {
  const { server, until, call } = startServer(t, unrulyService());
  await until('ready');
  const { pid = 0 } = server;
  const closed = assert.rejects(call('close-stdout'), /child closed its stdout/);
  assert.equal(await until('down'), 'child closed its stdout');
  await closed;
  await eventually(() => !isAlive(pid));
  await until('ready');
});

describe('a worker that is killed -9', () => {
  test('takes a server with it that ignores the end of stdin', async t => {
    // Without a tag: no worker that another test starts meanwhile can find it as an orphan.
    const launcher = new URL('../../workers/child/launcher.ts', import.meta.url);
    const script = `import { spawn } from 'node:child_process';
      import { launchLine } from '${launcher}';
      const env = { MODE: 'stubborn', PATH: process.env.PATH };
      const service = { command: '${process.execPath}', args: ['${UNRULY}'], limits: { open_files: 64 } };
      const { command, args } = launchLine(service, env, console);
      const { pid, stdout, stdin } = spawn(command, args, { env, detached: true, stdio: ['pipe', 'pipe', 'ignore'] });
      stdin.write('{"id":1,"method":"ping"}\\n');
      stdout.once('data', () => process.stdout.write(String(pid)));`;
    const worker = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    t.after(() => worker.kill('SIGKILL'));
    const [chunk] = await worker.stdout.take(1).toArray();
    const server = Number(chunk);
    t.after(() => isAlive(server) && process.kill(server, 'SIGKILL'));
    assert.equal(isAlive(server), true);
    worker.kill('SIGKILL');
    await eventually(() => !isAlive(server));
  });

  test('leaves what left the group for the next start to sweep, and the sweep touches nothing else', async t => {
    const { worker, server } = await startWorkerProcess(t, [
      '-e',
      `import(process.argv[1]); const { spawn } = require('node:child_process');
       const helper = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { detached: true, stdio: 'ignore' });
       process.stderr.write('helper ' + helper.pid);`,
      UNRULY,
    ]);
    const mine = startServer(t, unrulyService());
    await mine.until('ready');
    await eventually(() => childrenOf(server).length === 1);
    const [helper = 0] = childrenOf(server);
    t.after(() => isAlive(helper) && process.kill(helper, 'SIGKILL'));
    await sweepOrphans(silentLog);
    assert.deepEqual([isAlive(helper), isAlive(server)], [true, true]);

    worker.kill('SIGKILL');
    await eventually(() => !isAlive(server));
    await sweepOrphans(silentLog);
    assert.equal(isAlive(helper), false);
    assert.equal(await mine.call('echo', { text: 'still here' }), 'still here');
  });
});

/** A worker of its own process, with the pid of its server once that is ready. */
async function startWorkerProcess(
  t: TestContext,
  args: string[],
): Promise<{ worker: ChildProcess; server: number }> {
  const main = fileURLToPath(new URL('../../workers/main.ts', import.meta.url));
  const worker = spawn(process.execPath, [main, '--no-register', '--', process.execPath, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  t.after(() => worker.kill('SIGKILL'));
  let output = '';
  worker.stderr.on('data', chunk => {
    output += chunk;
  });
  while (!output.includes('server is ready')) await once(worker.stderr, 'data');
  const [server = 0] = childrenOf(worker.pid ?? 0);
  assert.ok(readProcess(server));
  return { worker, server };
}

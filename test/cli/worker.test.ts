import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { currentWorker } from '../../workers/fleet/bundle.ts';
import { NODE_FLAGS } from '../../workers/node-flags.ts';
import { until } from '../until.ts';
import { SCRIPTED } from '../workers/helpers.ts';

const ROOT = join(import.meta.dirname, '../..');

test('npm run worker: one worker, as a fleet starts its own, in the place of what started it', async t => {
  const args = ['--port', '0', '--no-register', '--', process.execPath, SCRIPTED];
  const npm = spawn('npm', ['run', '--silent', 'worker', '--', ...args], {
    cwd: ROOT,
    env: { ...process.env, MESH_DRAIN_IDLE_MS: '0' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let printed = '';
  npm.stderr.setEncoding('utf8').on('data', text => {
    printed += text;
  });
  const found = (pattern: RegExp) => Number(pattern.exec(printed)?.[1]);
  const pid = () => found(/"pid":(\d+)[^\n]*"server is ready"/);
  t.after(() => {
    if (npm.exitCode === null) process.kill(pid(), 'SIGKILL');
  });
  await until(() => pid() > 0 || npm.exitCode !== null);
  assert.ok(pid() > 0, printed);
  const [, ...words] = readFileSync(`/proc/${pid()}/cmdline`, 'utf8').split('\0').slice(0, -1);
  assert.deepEqual(words, [...NODE_FLAGS, join(ROOT, 'dist/worker/worker.mjs'), ...args]);
  assert.match(
    readFileSync(`/proc/${pid()}/environ`, 'utf8'),
    /NODE_COMPILE_CACHE=[^\0]*dist\/worker\/compiled\0/,
  );
  const [, parent] = readFileSync(`/proc/${pid()}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  assert.equal(Number(parent), npm.pid, 'nothing stands between npm and the worker');
  const health = await fetch(`http://127.0.0.1:${found(/"port":(\d+)[^\n]*"worker listens"/)}/health`);
  assert.equal(health.status, 200);
  const ended = once(npm, 'exit');
  process.kill(pid(), 'SIGTERM');
  assert.deepEqual(await ended, [0, null], printed);
});

test('the worker is bundled anew when its sources are others than those of the bundle, and only then', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-bundle-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'worker.mjs');
  const made = async () => {
    assert.equal(await currentWorker(program), program);
    return statSync(program).ino;
  };
  const first = await made();
  assert.equal(await made(), first);
  const sources = `${program}.sources`;
  const [line = '', ...rest] = readFileSync(sources, 'utf8').split('\n');
  writeFileSync(sources, [`${line}0`, ...rest].join('\n'));
  const second = await made();
  assert.notEqual(second, first);
  assert.equal(await made(), second);
});

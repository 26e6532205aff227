import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { NODE_FLAGS } from '../../../workers/node-flags.ts';
import { until } from '../../until.ts';
import { clientsOf, HOSTILE, textOf, untilReady } from './helpers.ts';

const MAIN = fileURLToPath(new URL('../../../workers/main.ts', import.meta.url));

export interface WorkerProcess {
  url: string;
  pid: number;
  /** Resident memory in MB. */
  rss(): number;
  /** Throws when the process has ended, or said what only a broken worker says. */
  assertSound(): void;
}

/** A worker in a process of its own, whose memory and last words are its own, on the hostile server. */
export async function startWorkerProcess(t: TestContext, service: object = {}): Promise<WorkerProcess> {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-hostile-'));
  const registry = join(folder, 'registry.yaml');
  const entry = {
    name: 'hostile',
    command: process.execPath,
    args: [HOSTILE],
    circuit_breaker: { failure_threshold: 1_000_000 },
    ...service,
  };
  // JSON is YAML.
  writeFileSync(registry, JSON.stringify({ version: 1, mcp_services: [entry] }));
  const worker = spawn(process.execPath, [...NODE_FLAGS, MAIN, 'hostile', '--no-register', '--port', '0'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      PATH: process.env.PATH,
      MESH_REGISTRY: registry,
      MESH_DRAIN_IDLE_MS: '0',
      MESH_DRAIN_DEADLINE_MS: '100',
    },
  });
  let stderr = '';
  let port: string | undefined;
  worker.stderr.setEncoding('utf8').on('data', text => {
    stderr = (stderr + text).slice(-100_000);
    port ??= /"port":(\d+)[^\n]*"worker listens"/.exec(stderr)?.[1];
  });
  t.after(() => stop(worker, folder));
  await until(() => port !== undefined || worker.exitCode !== null);
  assert.ok(port !== undefined, stderr);
  const url = `http://127.0.0.1:${port}`;
  await untilReady(url);
  const pid = worker.pid ?? 0;
  return {
    url,
    pid,
    rss: () => Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024,
    assertSound() {
      assert.deepEqual([worker.exitCode, worker.signalCode], [null, null], stderr.slice(-2000));
      assert.doesNotMatch(stderr, /unhandled|uncaught|ERR_UNHANDLED|MaxListenersExceeded|FATAL/i);
    },
  };
}

async function stop(worker: ChildProcess, folder: string): Promise<void> {
  if (worker.exitCode === null && worker.signalCode === null) {
    const ended = new Promise(resolve => worker.once('exit', resolve));
    worker.kill('SIGTERM');
    await ended;
  }
  rmSync(folder, { recursive: true });
}

/** What a worker may grow by while its server does its worst, in MB: far below what the worst amounts to. */
export const GROWTH_MB = 150;

/** The worker has lost nothing: it answers both eras, and said nothing odd. */
export async function assertServes(worker: WorkerProcess): Promise<void> {
  worker.assertSound();
  for (const client of await clientsOf(worker.url)) {
    assert.equal(textOf(await client.call('last', 'echo', { text: 'fine' })), 'fine');
  }
  worker.assertSound();
}

/** Highest resident memory while something goes on, above what it was before. */
export async function growthDuring(worker: WorkerProcess, work: () => Promise<unknown>): Promise<number> {
  const before = worker.rss();
  let most = before;
  const sampler = setInterval(() => {
    most = Math.max(most, worker.rss());
  }, 5);
  try {
    await work();
  } finally {
    clearInterval(sampler);
  }
  return Math.max(most, worker.rss()) - before;
}

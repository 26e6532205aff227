import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import { descendants } from '../e2e/mesh-process.ts';
import { keepCalling, LIMITED, type ObservedMesh } from './observed-mesh.ts';

/** Real faults of what a mesh leans on. Each goes on until the function that it resolves with is called. */
export type Fault = (observed: ObservedMesh) => Promise<() => Promise<void>>;

/** Close to the longest line that the audit log writes whole. */
const LONG_TEXT = 'x'.repeat(60_000);
const BETWEEN_CALLS_MS = 100;
/** Of util-linux. */
const PRLIMIT = 'prlimit';

/** The pid of a worker of the service. */
export function workerOf({ mesh }: ObservedMesh, service: string): number {
  const worker = descendants(mesh.pid).find(({ command }) => command.includes(` ${service} --supervised`));
  assert.ok(worker, `no worker of ${service}`);
  return worker.pid;
}

/** A tool takes longer than half of the time that it may. */
export const slowTool: Fault = async ({ call }) => keepCalling(6, () => call('shop', 'slow', { ms: 1200 }));

/** No file of a running worker's can grow any more, as on a full disk; callers fill the memory where entries wait. */
export const fullDisk: Fault = async observed => {
  execFileSync(PRLIMIT, ['--pid', String(workerOf(observed, 'shop')), '--fsize=1']);
  return keepCalling(2, () => observed.call('shop', 'echo', { text: LONG_TEXT }));
};

/** Redis is gone, and callers with limits go on. */
export const noLimitStore: Fault = async ({ redis, call }) => {
  await redis.close();
  return nowAndThen(() => call('shop', 'echo', {}, LIMITED));
};

/** An issuer has a new key, and nobody who would give it away. */
export const noIssuerKeys: Fault = async ({ issuer, call }) => {
  await issuer.vanish();
  const headers = { authorization: `Bearer ${await issuer.token('everybody')}` };
  assert.equal(await call('shop', 'echo', {}, headers), 401);
  return nowAndThen(() => call('shop', 'echo', {}, headers));
};

function nowAndThen(call: () => Promise<unknown>): () => Promise<void> {
  return keepCalling(1, async () => {
    await call();
    await pause(BETWEEN_CALLS_MS);
  });
}

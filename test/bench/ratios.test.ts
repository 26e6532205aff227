import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sendCalls } from './harness/load.ts';
import { median } from './harness/number.ts';
import { cpuMs, rssMb } from './harness/processes.ts';
import { startBareBridge, startHttpEcho } from './harness/references.ts';
import type { Target } from './harness/target.ts';
import { bundleWorker, startWorker } from './harness/worker.ts';

/**
 * That a change has not made the worker much dearer: ratios to programs that check nothing, measured side by side by
 * the processor time of processes, which a busy machine changes little. Far above what was measured (BENCHMARKS.md),
 * so what fails here is no noise.
 */

const ROUNDS = 5;
let bundle: Awaited<ReturnType<typeof bundleWorker>>;
before(async () => {
  bundle = await bundleWorker();
});
after(() => bundle.remove());

test('a call takes at most 6 times the processor time that it takes in a bridge without checks', async t => {
  const ratio = await compareCalls(t, 100, 1500);
  t.diagnostic(`100 B: ${ratio.toFixed(2)} times`);
  assert.ok(ratio <= 6, `${ratio} times`);
});

test('a call with 64 KB takes at most 4 times the processor time of that bridge', async t => {
  const ratio = await compareCalls(t, 64 * 1024, 150);
  t.diagnostic(`64 KB: ${ratio.toFixed(2)} times`);
  assert.ok(ratio <= 4, `${ratio} times`);
});

test('until its first answer the worker takes at most 3 times the processor time of fastify alone, and 1.6 times its memory', async t => {
  const starts: { cpu: number; rss: number }[] = [];
  for (let round = 0; round < 3; round += 1) {
    const fastify = await firstAnswer(startHttpEcho('fastify'));
    const worker = await firstAnswer(startWorker(bundle));
    starts.push({ cpu: worker.cpu / fastify.cpu, rss: worker.rss / fastify.rss });
  }
  const cpu = median(starts.map(start => start.cpu));
  const rss = median(starts.map(start => start.rss));
  t.diagnostic(`start: ${cpu.toFixed(2)} times the processor time, ${rss.toFixed(2)} times the memory`);
  assert.ok(cpu <= 3, `${cpu} times the processor time`);
  assert.ok(rss <= 1.6, `${rss} times the memory`);
});

/** Worker / bare bridge, median of rounds that alternate. */
async function compareCalls(
  t: { after(clean: () => Promise<void>): void },
  bytes: number,
  calls: number,
): Promise<number> {
  const worker = await startWorker(bundle);
  t.after(worker.stop);
  const bare = await startBareBridge('parse');
  t.after(bare.stop);
  const shape = { callers: 16, bytes };
  // What is hot is compiled.
  for (const target of [worker, bare]) await sendCalls(target, shape, 2 * calls);
  const ratios: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const own = await sendCalls(worker, shape, calls);
    ratios.push(own / (await sendCalls(bare, shape, calls)));
  }
  return median(ratios);
}

async function firstAnswer(starting: Promise<Target>): Promise<{ cpu: number; rss: number }> {
  const target = await starting;
  try {
    const [caller] = await target.open({ callers: 1, bytes: 100 });
    await caller?.call();
    const { server: _, ...own } = target.pids();
    const [pid = 0] = Object.values(own);
    return { cpu: cpuMs(pid), rss: rssMb(pid) };
  } finally {
    await target.stop();
  }
}

import { runQuietLoad, sendCalls } from './harness/load.ts';
import { isQuick, median, report, reportTable } from './harness/number.ts';
import { peakRssMb, rssMb } from './harness/processes.ts';
import { startBareBridge } from './harness/references.ts';
import type { Target } from './harness/target.ts';
import { type BenchWorker, bundleWorker, startWorker } from './harness/worker.ts';

/**
 * A thousand calls in flight over one session, and arguments of 5 MB: no error, nobody waits much longer than another,
 * memory that does not grow with what went through.
 */

const ROUNDS = isQuick ? 1 : 3;
const WINDOW = { warmUpMs: isQuick ? 1000 : 3000, ms: isQuick ? 1000 : 3000, quietMs: isQuick ? 500 : 6000 };
const THOUSAND = 1000;
const SLOW_MS = 50;
const HUGE = 5 * 1024 * 1024;
const HUGE_CALLERS = 4;
const HUGE_CALLS = isQuick ? 10 : 50;
const HUGE_PARTS = 4;

const bundle = await bundleWorker();
const worker = await startWorker({ program: bundle.program });
const bare = await startBareBridge('parse');
try {
  for (const delay of [0, SLOW_MS]) await thousand(delay);
  await huge();
} finally {
  await worker.stop();
  await bare.stop();
  bundle.remove();
}

async function thousand(delay: number): Promise<void> {
  const tool = delay === 0 ? 'a tool that answers at once' : `a tool that takes ${delay} ms`;
  const rows: (string | number)[][] = [];
  for (const target of [bare, worker]) {
    const loads = await rounds(target, delay);
    const of = (figure: (load: (typeof loads)[number]) => number) => median(loads.map(figure));
    const errors = loads.reduce((sum, load) => sum + load.errors, 0);
    rows.push([
      ...[target.name, of(load => load.callsPerSecond), of(load => load.p50), of(load => load.p99), errors],
      ...[of(load => load.ownCpuUs), rssMb(ownPid(target)), of(load => load.others)],
    ]);
    if (target !== worker) continue;
    report({ what: `Worker, 1000 in flight, ${tool}: errors`, value: errors, bar: 0 });
    const spread = of(load => load.p99 / load.p50);
    report({
      what: `Worker, 1000 in flight, ${tool}: p99 / p50, median of ${ROUNDS}`,
      value: spread,
      bar: 2,
    });
  }
  const columns = ['', 'calls/s', 'p50 ms', 'p99 ms', 'errors', 'CPU µs a call', 'RSS MB', 'others, cores'];
  reportTable({ title: `1000 in flight, 100 B, ${tool} (median of ${ROUNDS})`, columns, rows });
}

async function rounds(target: Target, delay: number) {
  const shape = { callers: THOUSAND, bytes: 100, delay };
  const loads = [];
  for (let round = 0; round < ROUNDS; round += 1)
    loads.push(await runQuietLoad(target, shape, { ...WINDOW, countErrors: true }, ROUNDS));
  return loads;
}

function ownPid(target: Target): number {
  const { worker: own, bridge } = target.pids();
  return own ?? bridge ?? 0;
}

/** V8 takes what it may at first; what passes through must not make it more and more. */
async function huge(): Promise<void> {
  const fresh = await startWorker({ program: bundle.program });
  try {
    const idle = rssMb(fresh.pid);
    const peaks: number[] = [];
    let took = 0;
    for (let part = 0; part < HUGE_PARTS; part += 1) {
      took = await callHuge(fresh);
      peaks.push(peakRssMb(fresh.pid));
    }
    reportTable({
      title: `Arguments and results of 5 MB, ${HUGE_CALLERS} in flight, ${HUGE_PARTS} times ${HUGE_CALLS} calls`,
      columns: ['', 'idle RSS MB', ...peaks.map((_, i) => `peak after ${i + 1}`), 'RSS after', 'ms a call'],
      rows: [['worker', idle, ...peaks, rssMb(fresh.pid), took]],
    });
    const [, second = 0] = peaks;
    const what = `Worker, ${HUGE_CALLS} calls of 5 MB, ${HUGE_PARTS} times: peak RSS / that after the second time`;
    report({ what, value: (peaks.at(-1) ?? 0) / second, bar: 1.1 });
  } finally {
    await fresh.stop();
  }
}

/** Resolves with the ms that one took, all being right. */
async function callHuge(target: BenchWorker): Promise<number> {
  const began = performance.now();
  await sendCalls(target, { callers: HUGE_CALLERS, bytes: HUGE }, HUGE_CALLS);
  return ((performance.now() - began) * HUGE_CALLERS) / HUGE_CALLS;
}

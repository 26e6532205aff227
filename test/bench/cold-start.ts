import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isQuick, median, report, reportTable } from './harness/number.ts';
import { cpuMs, quietMachine, rssMb } from './harness/processes.ts';
import { startBareBridge, startDirect, startHttpEcho } from './harness/references.ts';
import type { Target } from './harness/target.ts';
import { bundleWorker, startWorker } from './harness/worker.ts';

/**
 * From spawn to the first answered call of a tool, and what of it is not the stdio server's own start. The worker from
 * its source and bundled, and with Node's compile cache (NODE_COMPILE_CACHE), which is empty at first and then warm.
 */

const ROUNDS = isQuick ? 3 : 15;
const QUIET_MS = isQuick ? 300 : 3000;
const SOURCE = join(import.meta.dirname, '../../workers/main.ts');
const WORKER = 'worker, bundle';

interface Start {
  /** To the first answer. */
  ms: number;
  /** Processor time of the process that was started, in ms. */
  cpu: number;
  rss: number;
}

const bundle = await bundleWorker();
const caches = mkdtempSync(join(tmpdir(), 'bench-cache-'));
const cached = (folder: string) => ({ NODE_COMPILE_CACHE: join(caches, folder) });
let emptyCaches = 0;
const kinds: Record<string, () => Promise<Target>> = {
  'direct stdio': startDirect,
  'node:http': () => startHttpEcho('node'),
  fastify: () => startHttpEcho('fastify'),
  'bare bridge': () => startBareBridge('parse'),
  [WORKER]: () => startWorker({ program: bundle.program }),
  'worker, bundle, warm compile cache': () => startWorker({ program: bundle.program, env: cached('bundle') }),
  'worker, bundle, empty compile cache': () => {
    emptyCaches += 1;
    return startWorker({ program: bundle.program, env: cached(`empty-${emptyCaches}`) });
  },
  'worker, source': () => startWorker({ program: SOURCE }),
  'worker, source, warm compile cache': () => startWorker({ program: SOURCE, env: cached('source') }),
};
try {
  const starts = await measureAll();
  const direct = median((starts.get('direct stdio') ?? []).map(({ ms }) => ms));
  reportTable({
    title: `Cold start (median of ${ROUNDS})`,
    columns: ['', 'ms to the first answer', "less the server's own start", 'CPU ms', 'RSS MB then'],
    rows: [
      ['node, empty program', await nodeItself(), '', '', ''],
      ...[...starts].map(([name, all]) => {
        const of = (figure: (start: Start) => number) => median(all.map(figure));
        return [
          name,
          of(({ ms }) => ms),
          of(({ ms }) => ms) - direct,
          of(({ cpu }) => cpu),
          of(({ rss }) => rss),
        ];
      }),
    ],
  });
  const ms = median((starts.get(WORKER) ?? []).map(start => start.ms)) - direct;
  report({
    what: "Worker, spawn to first answered call less the server's own start: ms",
    value: ms,
    bar: 200,
  });
} finally {
  bundle.remove();
  rmSync(caches, { recursive: true });
}

async function measureAll(): Promise<Map<string, Start[]>> {
  const starts = new Map<string, Start[]>(Object.keys(kinds).map(name => [name, []]));
  // One before the first round fills caches: the file system's, and those of `warm`.
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const [name, start] of Object.entries(kinds)) {
      await quietMachine(QUIET_MS);
      const measured = await measure(start);
      if (round >= 0) starts.get(name)?.push(measured);
    }
  }
  return starts;
}

async function measure(start: () => Promise<Target>): Promise<Start> {
  const began = performance.now();
  const target = await start();
  try {
    const [caller] = await target.open({ callers: 1, bytes: 100 });
    await caller?.call();
    const ms = performance.now() - began;
    const { server = 0, ...own } = target.pids();
    const pid = Object.values(own)[0] ?? server;
    return { ms, cpu: cpuMs(pid), rss: rssMb(pid) };
  } finally {
    await target.stop();
  }
}

/** What no program in Node is faster than: from spawn to its end, in ms. */
async function nodeItself(): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const began = performance.now();
    await once(spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' }), 'exit');
    times.push(performance.now() - began);
  }
  return median(times);
}

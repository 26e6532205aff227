import { fileURLToPath } from 'node:url';
import { createGatewayMetrics } from '../../kong-plugin/metrics.ts';
import { startBareWorker } from './harness/bare-worker.ts';
import { percentile, report } from './harness/number.ts';

/**
 * What metrics cost: the same worker with and without them in turn, the one with them scraped once a second of its
 * calls (fifteen times as often as the shipped configuration does); and the plugin's counting, of its own time.
 */

/** Short and many: what else the machine does hits both alike. */
const ROUNDS = 80;
const ROUND_MS = 250;
const WARM_UP_MS = 3000;
const IN_FLIGHT = 64;
/** DESIGN §12: self time of the plugin for one call, access and log. */
const PLUGIN_BUDGET_US = 150;
const OUTCOMES = 200_000;

type Figures = Record<'bare' | 'counting', { calls: number; cpuPerCall: number }>;
const order: [keyof Figures, keyof Figures] = ['bare', 'counting'];

const without = fileURLToPath(new URL('./harness/without-metrics.mjs', import.meta.url));
const workers = { bare: await startBareWorker(['--import', without]), counting: await startBareWorker([]) };
try {
  if ((await workers.bare.scrape()) > 0) throw new Error('the worker without metrics has some');
  for (const worker of Object.values(workers)) await worker.run(IN_FLIGHT, WARM_UP_MS);
  const cpu: number[] = [];
  const calls: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const [first, second] = round % 2 === 0 ? order : ([order[1], order[0]] as const);
    const figures = {
      [first]: await measure(first, round),
      [second]: await measure(second, round),
    } as Figures;
    const { bare, counting } = figures;
    cpu.push(counting.cpuPerCall / bare.cpuPerCall);
    calls.push(bare.calls / counting.calls);
  }
  const what = `Worker, ${IN_FLIGHT} calls in flight, median of ${ROUNDS} rounds`;
  report({ what: `${what}: CPU per call with metrics / without`, value: percentile(cpu, 0.5), bar: 1.05 });
  report({ what: `${what}: throughput without metrics / with`, value: percentile(calls, 0.5), bar: 1.05 });
} finally {
  await Promise.all(Object.values(workers).map(worker => worker.stop()));
}
const us = timeOutcomes();
console.log(`gateway: ${us.toFixed(2)} µs to count the outcome of a request`);
report({
  what: 'Plugin: counting an outcome / self time that a call may take',
  value: us / PLUGIN_BUDGET_US,
  bar: 0.05,
});

async function measure(name: keyof Figures, round: number): Promise<Figures[keyof Figures]> {
  const worker = workers[name];
  const scraped = round % (1000 / ROUND_MS) === 0 ? worker.scrape() : undefined;
  const [{ calls, cpuMs }] = await Promise.all([worker.run(IN_FLIGHT, ROUND_MS), scraped]);
  return { calls, cpuPerCall: cpuMs / calls };
}

/** Microseconds for one. */
function timeOutcomes(): number {
  const metrics = createGatewayMetrics(undefined);
  const tries = Array.from({ length: 8 }, (_, i) => [
    { instance: `i${i}`, result: 'answered' as const, reason: '' },
  ]);
  const run = (count: number) => {
    for (let i = 0; i < count; i += 1) {
      metrics.observe({
        callId: 'c',
        service: 'github',
        status: i % 10 === 0 ? 502 : 200,
        tries: tries[i % tries.length] ?? [],
        latencyMs: i % 1000,
        answeredMs: 1,
        report: undefined,
      });
    }
  };
  run(OUTCOMES);
  const started = performance.now();
  run(OUTCOMES);
  return ((performance.now() - started) * 1000) / OUTCOMES;
}

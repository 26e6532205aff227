import { fileURLToPath } from 'node:url';
import { createGatewayMetrics } from '../../kong-plugin/metrics.ts';
import { type BareWorker, startBareWorker } from './harness/bare-worker.ts';
import { percentile, report } from './harness/number.ts';

/**
 * What metrics cost: workers with and without them in turn, those with them scraped once a second of their calls
 * (fifteen times as often as the shipped configuration does); and the plugin's counting, of its own time.
 */

/** Two runs of one program differ by a tenth, whatever is in it: several of each are compared. */
const PAIRS = 7;
/** Short and many: what else the machine does hits both alike. */
const ROUNDS = 24;
const ROUND_MS = 200;
const WARM_UP_MS = 1500;
const SCRAPE_EVERY = 1000 / ROUND_MS;
const IN_FLIGHT = 64;
/** DESIGN §12: self time of the plugin for one call, access and log. */
const PLUGIN_BUDGET_US = 150;
const OUTCOMES = 200_000;
const WITHOUT = fileURLToPath(new URL('./harness/without-metrics.mjs', import.meta.url));

interface Figures {
  cpu: number[];
  calls: number[];
}

const cpu: number[] = [];
const calls: number[] = [];
for (let pair = 0; pair < PAIRS; pair += 1) {
  const figures = await comparePair();
  cpu.push(percentile(figures.cpu, 0.5));
  calls.push(percentile(figures.calls, 0.5));
}
const what = `Worker, ${IN_FLIGHT} calls in flight, median of ${PAIRS} pairs of processes with ${ROUNDS} rounds each`;
report({ what: `${what}: CPU per call with metrics / without`, value: percentile(cpu, 0.5), bar: 1.05 });
report({ what: `${what}: throughput without metrics / with`, value: percentile(calls, 0.5), bar: 1.05 });
console.log(`CPU, pair by pair: ${cpu.map(ratio => ratio.toFixed(2)).join(' ')}`);
const us = timeOutcomes();
console.log(`gateway: ${us.toFixed(2)} µs to count the outcome of a request`);
const share = us / PLUGIN_BUDGET_US;
report({ what: 'Plugin: counting an outcome / self time that a call may take', value: share, bar: 0.05 });

/** Ratios, round by round: of CPU with / without, and of calls without / with. */
async function comparePair(): Promise<Figures> {
  const bare = await startBareWorker(['--import', WITHOUT]);
  const counting = await startBareWorker([]);
  const figures: Figures = { cpu: [], calls: [] };
  try {
    if ((await bare.scrape()) > 0) throw new Error('the worker without metrics has some');
    for (const worker of [bare, counting]) await worker.run(IN_FLIGHT, WARM_UP_MS);
    for (let round = 0; round < ROUNDS; round += 1) {
      const turns = round % 2 === 0 ? [bare, counting] : [counting, bare];
      const measured = new Map<BareWorker, { calls: number; cpuPerCall: number }>();
      for (const worker of turns) measured.set(worker, await measure(worker, round % SCRAPE_EVERY === 0));
      const [without, withThem] = [measured.get(bare), measured.get(counting)];
      if (!without || !withThem) continue;
      figures.cpu.push(withThem.cpuPerCall / without.cpuPerCall);
      figures.calls.push(without.calls / withThem.calls);
    }
  } finally {
    await Promise.all([bare.stop(), counting.stop()]);
  }
  return figures;
}

async function measure(worker: BareWorker, scrape: boolean): Promise<{ calls: number; cpuPerCall: number }> {
  const [{ calls, cpuMs }] = await Promise.all([
    worker.run(IN_FLIGHT, ROUND_MS),
    scrape ? worker.scrape() : undefined,
  ]);
  return { calls, cpuPerCall: cpuMs / calls };
}

/** Microseconds for one. */
function timeOutcomes(): number {
  const metrics = createGatewayMetrics(undefined);
  const run = (count: number) => {
    for (let i = 0; i < count; i += 1) {
      metrics.observe({
        callId: 'c',
        service: 'github',
        status: i % 10 === 0 ? 502 : 200,
        tries: [{ instance: `i${i % 8}`, result: 'answered', reason: '' }],
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

import { createGatewayMetrics } from '../../kong-plugin/metrics.ts';
import { type BareWorker, startBareWorker } from './harness/bare-worker.ts';
import { percentile, report } from './harness/number.ts';

/**
 * What metrics cost: one worker that counts and does not count in turn, scraped once a second of its calls (fifteen
 * times as often as the shipped configuration does), and the plugin's counting, of its own time.
 */

/** Short and many: what else the machine does hits both alike. */
const ROUNDS = 100;
const ROUND_MS = 200;
const WARM_UP_MS = 3000;
const SCRAPES = 50;
const IN_FLIGHT = 64;
/** DESIGN §12: self time of the plugin for one call, access and log. */
const PLUGIN_BUDGET_US = 150;
const OUTCOMES = 200_000;

interface Figures {
  calls: number;
  cpuPerCall: number;
}

const worker = await startBareWorker();
try {
  await worker.run(IN_FLIGHT, WARM_UP_MS);
  const cpu: number[] = [];
  const calls: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const first = await measure(worker, round % 2 === 0);
    const second = await measure(worker, round % 2 !== 0);
    const [counting, silent] = round % 2 === 0 ? [first, second] : [second, first];
    cpu.push(counting.cpuPerCall / silent.cpuPerCall);
    calls.push(silent.calls / counting.calls);
  }
  const scrapeShare = (await cpuOfScrape(worker)) / 1000;
  console.log(`worker: a scrape takes ${(scrapeShare * 1000).toFixed(1)} ms of CPU`);
  const what = `Worker, ${IN_FLIGHT} calls in flight, median of ${ROUNDS} rounds, one scrape a second`;
  const withScrapes = (ratio: number) => ratio / (1 - scrapeShare);
  report({
    what: `${what}: CPU per call with metrics / without`,
    value: withScrapes(percentile(cpu, 0.5)),
    bar: 1.05,
  });
  report({
    what: `${what}: throughput without metrics / with`,
    value: withScrapes(percentile(calls, 0.5)),
    bar: 1.05,
  });
} finally {
  await worker.stop();
}
const us = timeOutcomes();
console.log(`gateway: ${us.toFixed(2)} µs to count the outcome of a request`);
const share = us / PLUGIN_BUDGET_US;
report({ what: 'Plugin: counting an outcome / self time that a call may take', value: share, bar: 0.05 });

async function measure(of: BareWorker, counts: boolean): Promise<Figures> {
  await of.count(counts);
  const { calls, cpuMs } = await of.run(IN_FLIGHT, ROUND_MS);
  return { calls, cpuPerCall: cpuMs / calls };
}

/** In ms. */
async function cpuOfScrape(of: BareWorker): Promise<number> {
  const before = of.cpuMs();
  for (let i = 0; i < SCRAPES; i += 1) await of.scrape();
  return (of.cpuMs() - before) / SCRAPES;
}

/** Microseconds for one. */
function timeOutcomes(): number {
  const metrics = createGatewayMetrics(undefined);
  const run = (count: number) => {
    for (let i = 0; i < count; i += 1) {
      metrics.observe({
        callId: 'c',
        lease: 'l',
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

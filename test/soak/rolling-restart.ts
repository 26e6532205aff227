import { parseArgs } from 'node:util';
import { collectCleanUps, restartInTurn, startFleetHarness } from '../e2e/fleet-harness.ts';
import { type CallRecord, startLoad } from '../e2e/load-generator.ts';
import { startRealConsul } from '../real-consul.ts';

/**
 * Rolling restarts of three workers under load, with a real Consul: `node test/soak/rolling-restart.ts`. Bar: 0 failed
 * calls. Idle times are those of the tests, scaled down together; `--idle-ms 15000` is what kong.conf has.
 */

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '100' },
    'in-flight': { type: 'string', default: '16' },
    gateways: { type: 'string', default: '2' },
    'idle-ms': { type: 'string', default: '500' },
  },
});
const SERVICE = 'shop';
const WORKERS = 3;
const REPORT_EVERY = 10;
const SHOWN_FAILURES = 10;

const cleanUps = collectCleanUps();
try {
  await run(Number(values.rounds), Number(values['in-flight']));
} finally {
  await cleanUps.run();
}

async function run(rounds: number, inFlight: number): Promise<void> {
  const { consul, reason } = await startRealConsul();
  if (!consul) throw new Error(reason);
  cleanUps.add(() => consul.close());
  const harness = await startFleetHarness(cleanUps.add, {
    services: [{ name: SERVICE, workers: WORKERS }],
    consulUrl: consul.url,
    gateways: Number(values.gateways),
    idleMs: Number(values['idle-ms']),
  });
  const load = await startLoad({ urls: harness.urls, service: SERVICE, inFlight, serverMs: [20, 120] });
  cleanUps.add(() => load.stop());
  const startedAt = Date.now();
  let seen = 0;
  console.log(row(['rounds', 'restarts', 'calls', 'failed', 'p50 ms', 'p99 ms', 'max ms', 'seconds']));
  for (let round = 1; round <= rounds; round += 1) {
    await restartInTurn(harness, SERVICE);
    if (round % REPORT_EVERY === 0 || round === rounds) {
      report(round, load.ended.slice(seen), load.ended, startedAt);
      seen = load.ended.length;
    }
  }
  const calls = await load.stop();
  const failed = calls.filter(({ ok }) => !ok);
  const twice = [...harness.executions().values()].filter(pids => pids.length > 1).length;
  for (const { id, status, text } of failed.slice(0, SHOWN_FAILURES)) console.log(id, status, text);
  console.log(
    `\nNode ${process.version}: ${rounds} rolling restarts of ${WORKERS} workers, ${inFlight} calls in flight: ` +
      `${calls.length} calls, ${failed.length} failed, ${twice} executed twice`,
  );
  if (failed.length > 0 || twice > 0) process.exitCode = 1;
}

/** Latencies of the calls since the last row, counts of all. */
function report(round: number, recent: CallRecord[], all: readonly CallRecord[], startedAt: number): void {
  const times = recent.map(call => call.endedAt - call.startedAt).sort((a, b) => a - b);
  const at = (share: number) =>
    Math.round(times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0);
  const failed = all.filter(({ ok }) => !ok).length;
  const seconds = Math.round((Date.now() - startedAt) / 1000);
  console.log(row([round, round * WORKERS, all.length, failed, at(0.5), at(0.99), at(1), seconds]));
}

function row(cells: (string | number)[]): string {
  return cells.map(cell => String(cell).padStart(8)).join('  ');
}

import { parseArgs } from 'node:util';
import { runChaos } from '../workers/fleet/chaos.ts';

/**
 * Calls while workers and servers are killed, stopped and told to end at random: `node test/soak/fleet.ts`. Bar:
 * processes, zombies, descriptors and memory return to where they were, and every call ends.
 */

const { values } = parseArgs({
  options: {
    services: { type: 'string', default: '20' },
    calls: { type: 'string', default: '10000' },
    kills: { type: 'string', default: '1000' },
    'in-flight': { type: 'string', default: '16' },
    'growth-mb': { type: 'string', default: '20' },
  },
});
const startedAt = Date.now();
const { before, after, stopped, answered, failed, signals } = await runChaos({
  services: Number(values.services),
  calls: Number(values.calls),
  kills: Number(values.kills),
  inFlight: Number(values['in-flight']),
  report: text =>
    console.log(`${String(Math.round((Date.now() - startedAt) / 1000)).padStart(5)} s  ${text}`),
});
console.log(
  `\nNode ${process.version}: ${values.services} services, ${answered + failed} calls (${answered} answered, ` +
    `${failed} failed), signals ${JSON.stringify(signals)}`,
);
const faults = [
  after.processes !== before.processes && `${after.processes} processes instead of ${before.processes}`,
  after.zombies > 0 && `${after.zombies} zombies`,
  after.descriptors > before.descriptors &&
    `${after.descriptors} descriptors instead of ${before.descriptors}`,
  after.heapMb > before.heapMb + Number(values['growth-mb']) &&
    `${after.heapMb} MB of heap instead of ${before.heapMb}`,
  stopped.processes > 0 && `${stopped.processes} processes after the end`,
].filter(fault => fault !== false);
for (const fault of faults) console.log(`LEFT BEHIND: ${fault}`);
if (faults.length > 0) process.exitCode = 1;

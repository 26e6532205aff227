import { startGateway } from './harness/gateway.ts';
import { isQuick, median, report, reportTable } from './harness/number.ts';
import { type PhaseTimes, startPlugin, timePhases } from './harness/plugin-calls.ts';
import { type PluginTime, profilePlugin } from './harness/plugin-time.ts';
import { quietMachine } from './harness/processes.ts';
import { PROFILED } from './harness/profile.ts';
import { bundleWorker, SERVICE } from './harness/worker.ts';

/**
 * What the plugin takes for one call: its own modules and what they call, without Kong's PDK and its messages. Once as
 * processor time in this process, without any of those, and once by a profile of the plugin server under load.
 */

const ACCESS_BAR_US = 100;
const LOG_BAR_US = 50;
const ROUNDS = isQuick ? 3 : 9;
const BATCHES = isQuick ? 30 : 100;
const PROFILES = isQuick ? 1 : 3;
const CALLS = isQuick ? 500 : 4000;
const SHAPE = { callers: 8, bytes: 100 };
const QUIET_MS = isQuick ? 300 : 6000;

const bundle = await bundleWorker();
const gateway = await startGateway(bundle.program, PROFILED);
try {
  // Until it is compiled: 1000 requests are not enough for the optimizing compiler.
  await profilePlugin(gateway, CALLS, SHAPE);
  const profiles: PluginTime[] = [];
  for (let round = 0; round < PROFILES; round += 1) {
    await quietMachine(QUIET_MS);
    profiles.push(await profilePlugin(gateway, CALLS, SHAPE));
  }
  const phases = await timeInProcess();
  const { access, log } = await gateway.pdkCalls();
  reportTimes(phases, profiles);
  report({
    what: 'Plugin: PDK round trips in access, the most of any call',
    value: Math.max(...access),
    bar: 2,
  });
  report({ what: 'Plugin: PDK round trips in log, the most of any call', value: Math.max(...log), bar: 1 });
} finally {
  await gateway.stop();
  bundle.remove();
}
// The plugin's own connections and timers stay for as long as its process.
process.exit();

async function timeInProcess(): Promise<PhaseTimes[]> {
  const plugin = await startPlugin(gateway.env, SERVICE);
  await timePhases(plugin, SERVICE, BATCHES);
  const phases: PhaseTimes[] = [];
  for (let round = 0; round < ROUNDS; round += 1) phases.push(await timePhases(plugin, SERVICE, BATCHES));
  return phases;
}

function reportTimes(phases: PhaseTimes[], profiles: PluginTime[]): void {
  const alone = { access: median(phases.map(p => p.access)), log: median(phases.map(p => p.log)) };
  const of = (part: 'access' | 'log' | 'rpc' | 'rest') => median(profiles.map(profile => profile[part]));
  reportTable({
    title: 'Plugin, µs for one call',
    columns: ['', 'access', 'log', 'PDK and messages', 'rest of Node'],
    rows: [
      [`modules alone, CPU time (median of ${ROUNDS})`, alone.access, alone.log, '–', '–'],
      [
        `profile of the plugin server, 8 in flight (median of ${PROFILES})`,
        ...[of('access'), of('log'), of('rpc'), of('rest')],
      ],
    ],
  });
  reportTable({
    title: 'Profile of the plugin server: modules by self time, µs for one call',
    columns: ['', 'µs'],
    rows: profiles.at(-1)?.modules ?? [],
  });
  const how = 'modules alone, CPU time';
  report({ what: `Plugin, access, ${how}: µs for one call`, value: alone.access, bar: ACCESS_BAR_US });
  report({ what: `Plugin, log, ${how}: µs for one call`, value: alone.log, bar: LOG_BAR_US });
  const under = 'profile under load';
  report({ what: `Plugin, access, ${under}: µs for one call`, value: of('access'), bar: ACCESS_BAR_US });
  report({ what: `Plugin, log, ${under}: µs for one call`, value: of('log'), bar: LOG_BAR_US });
}

import { startGateway } from './harness/gateway.ts';
import { type Load, medianLoad, runLoad, runQuietLoad } from './harness/load.ts';
import { format, isQuick, median, report, reportTable } from './harness/number.ts';
import { startBareBridge, startDirect, startHttpEcho } from './harness/references.ts';
import type { Shape, Target } from './harness/target.ts';
import { bundleWorker, startWorker } from './harness/worker.ts';

/**
 * What a call through the mesh costs beside one without it: the same stdio server called over its pipes, behind a
 * bridge that checks nothing, behind our worker, and behind gateway and worker. The gateway is Kong's stand-in, which
 * is no measure of Kong; the plugin in its server is the real one. Rounds alternate; medians; ratios within the run.
 */

const ROUNDS = isQuick ? 1 : 5;
const WINDOW = { warmUpMs: isQuick ? 300 : 700, ms: isQuick ? 700 : 2000, quietMs: isQuick ? 500 : 4000 };
const TRIES = isQuick ? 1 : 2;
/** Before the first round: what is hot is compiled. */
const WARM_UP = { warmUpMs: 0, ms: isQuick ? 500 : 2500 };
const LONG = 64 * 1024;
const SIZES = [
  [100, '100 B'],
  [LONG, '64 KB'],
] as const;
const SHAPES: readonly (Shape & { what: string })[] = SIZES.flatMap(([bytes, size]) =>
  [1, 8, 64].map(callers => ({ callers, bytes, what: `${callers} in flight, ${size}` })),
);
const ONE_SESSION = '64 in flight, 100 B';
const MANY_SESSIONS = { callers: 64, sessions: 64, bytes: 100, what: `${ONE_SESSION}, 64 sessions` };

const bundle = await bundleWorker();
const starters: readonly (() => Promise<Target>)[] = [
  startDirect,
  () => startHttpEcho('fastify'),
  () => startBareBridge('parse'),
  () => startBareBridge('splice'),
  () => startWorker({ program: bundle.program }),
  () => startGateway(bundle.program),
];
/** In the order of their tables. */
const names = new Set<string>();
try {
  const rounds = await measureAll();
  const loads: Loads = (target, what) => medianLoad(rounds(target, what));
  for (const { what } of [...SHAPES, MANY_SESSIONS]) reportTable(tableOf(what, loads));
  reportBars(rounds);
} finally {
  bundle.remove();
}

/** By target and shape. */
type Rounds = (target: string, what: string) => readonly Load[];
/** Medians. */
type Loads = (target: string, what: string) => Load;

async function measureAll(): Promise<Rounds> {
  const rounds = new Map<string, Load[]>();
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [key, load] of await measureRound(round)) rounds.set(key, [...(rounds.get(key) ?? []), load]);
  }
  return (target, what) => rounds.get(keyOf(target, what)) ?? [];
}

/** With processes of its own: two of the same program differ by up to a fifth, for as long as they live. */
async function measureRound(round: number): Promise<Map<string, Load>> {
  const loads = new Map<string, Load>();
  const targets: Target[] = [];
  try {
    for (const start of starters) targets.push(await start());
    for (const { name } of targets) names.add(name);
    for (const target of targets)
      for (const bytes of [100, LONG]) await runLoad(target, { callers: 8, bytes }, WARM_UP);
    const shift = round % targets.length;
    const ordered = [...targets.slice(shift), ...targets.slice(0, shift)];
    for (const shape of shapesOf(round)) {
      for (const target of ordered) {
        if (shape.sessions !== undefined && !hasSessions(target.name)) continue;
        loads.set(keyOf(target.name, shape.what), await runQuietLoad(target, shape, WINDOW, TRIES));
      }
    }
    return loads;
  } finally {
    for (const target of targets) await target.stop();
  }
}

/** Many sessions stand beside one, before long texts have changed the process, and now first, now second. */
function shapesOf(round: number): readonly (Shape & { what: string })[] {
  return SHAPES.flatMap(shape => {
    if (shape.what !== ONE_SESSION) return [shape];
    return round % 2 === 0 ? [shape, MANY_SESSIONS] : [MANY_SESSIONS, shape];
  });
}

function keyOf(target: string, what: string): string {
  return `${target}, ${what}`;
}

function hasSessions(name: string): boolean {
  return name === 'worker' || name === 'gateway + worker';
}

function tableOf(what: string, loads: Loads) {
  const bare = loads('bare bridge', what === MANY_SESSIONS.what ? ONE_SESSION : what);
  const all = [...names];
  const measured = what === MANY_SESSIONS.what ? all.filter(hasSessions) : all;
  return {
    title: `${what} (median of ${ROUNDS})`,
    columns: [
      ...['', 'calls/s', 'p50 ms', 'p99 ms', 'CPU µs a call', '× bare bridge: calls/s', 'p50', 'CPU'],
      ...['CPU by process', 'others, cores'],
    ],
    rows: measured.map(name => {
      const load = loads(name, what);
      const parts = Object.entries(load.cpuUs).map(([process, us]) => `${process} ${format(us)}`);
      return [
        ...[name, load.callsPerSecond, load.p50, load.p99, load.ownCpuUs],
        ...[load.callsPerSecond / bare.callsPerSecond, load.p50 / bare.p50, load.ownCpuUs / bare.ownCpuUs],
        ...[parts.join(', '), load.others],
      ];
    }),
  };
}

/** Ratios of one round are of the same minutes; their median is what counts. */
function reportBars(rounds: Rounds): void {
  const [one, , , , , manyLong] = SHAPES.map(({ what }) => what) as [string, ...string[]];
  const ratio = (of: (load: Load) => number, what: string, to: string, toWhat = what) => {
    const others = rounds(to, toWhat);
    return median(rounds('worker', what).map((load, round) => of(load) / of(others[round] ?? load)));
  };
  const speed = (load: Load) => load.callsPerSecond;
  report({
    what: 'Worker, 64 in flight, 100 B: calls/s / bare bridge',
    value: ratio(speed, ONE_SESSION, 'bare bridge'),
    bar: 0.5,
    least: true,
  });
  report({
    what: 'Worker, 1 in flight, 100 B: p50 / bare bridge',
    value: ratio(load => load.p50, one, 'bare bridge'),
    bar: 1.5,
  });
  report({
    what: 'Worker, 64 in flight, 64 KB: calls/s / bare bridge that splices',
    value: ratio(speed, manyLong ?? '', 'bare bridge, splicing'),
    bar: 0.8,
    least: true,
  });
  report({
    what: 'Worker, 64 in flight, 100 B, 64 sessions: calls/s / one session (5 % are noise)',
    value: ratio(speed, MANY_SESSIONS.what, 'worker', ONE_SESSION),
    bar: 0.95,
    least: true,
  });
  report({
    what: 'Worker, 64 in flight, 100 B, 64 sessions: CPU for a call / one session',
    value: ratio(load => load.ownCpuUs, MANY_SESSIONS.what, 'worker', ONE_SESSION),
    bar: 1.1,
  });
}

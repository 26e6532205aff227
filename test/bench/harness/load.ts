import { setTimeout as pause } from 'node:timers/promises';
import { percentile } from './number.ts';
import { cpuMs, machineCpuMs, quietMachine } from './processes.ts';
import type { Shape, Target } from './target.ts';

/** What callers met who each sent the next call when the last was answered. */
export interface Load {
  calls: number;
  /** The first failure is thrown unless they are to be counted. */
  errors: number;
  callsPerSecond: number;
  /** Milliseconds. */
  p50: number;
  p99: number;
  /** Microseconds of processor time for one call, by process. */
  cpuUs: Record<string, number>;
  /** The same of all processes but the stdio server. */
  ownCpuUs: number;
  /** Processors that were busy with something else: neither the target nor this process. */
  others: number;
}

export interface Window {
  warmUpMs: number;
  ms: number;
  /** How long to wait for a quiet machine before. Default: not. */
  quietMs?: number;
  /** Default: the first failure is thrown. */
  countErrors?: boolean;
}

/** Processors. */
const OTHERS_MAX = 0.15;
/** Windows that a load may last, when one is too short. */
const PATIENCE = 20;

/** Runs it again when others had a good part of the machine; resolves with the run that they disturbed least. */
export async function runQuietLoad(
  target: Target,
  shape: Shape,
  window: Window,
  tries: number,
): Promise<Load> {
  let best = await runLoad(target, shape, window);
  for (let again = 1; again < tries && best.others > OTHERS_MAX; again += 1) {
    const load = await runLoad(target, shape, window);
    if (load.others < best.others) best = load;
  }
  return best;
}

/** Keeps calls under way for a while and measures. @throws Error for a wrong answer, unless errors are counted */
export async function runLoad(target: Target, shape: Shape, window: Window): Promise<Load> {
  if (window.quietMs) await quietMachine(window.quietMs);
  const callers = await target.open(shape);
  const latencies: number[] = [];
  let errors = 0;
  let phase: 'warm-up' | 'measured' | 'over' = 'warm-up';
  const loop = async (call: () => Promise<void>) => {
    while (phase !== 'over') {
      const began = performance.now();
      try {
        await call();
      } catch (error) {
        if (!window.countErrors) throw error;
        errors += 1;
      }
      if (phase === 'measured') latencies.push(performance.now() - began);
    }
  };
  const running = Promise.all(callers.map(caller => loop(caller.call)));
  try {
    await Promise.race([running, pause(window.warmUpMs)]);
    const before = clocks(target);
    phase = 'measured';
    await Promise.race([running, pause(window.ms)]);
    // On a busy machine a window may be too short for even one call of each.
    for (let more = 0; more < PATIENCE && latencies.length < callers.length; more += 1)
      await Promise.race([running, pause(window.ms)]);
    const after = clocks(target);
    phase = 'over';
    await running;
    return { ...summarize(latencies, before, after), errors };
  } finally {
    phase = 'over';
    for (const caller of callers) caller.close();
  }
}

/** So many calls. Resolves with the microseconds of processor time for one, without the stdio server's. */
export async function sendCalls(target: Target, shape: Shape, calls: number): Promise<number> {
  const callers = await target.open(shape);
  const before = clocks(target);
  let left = calls;
  await Promise.all(
    callers.map(async caller => {
      for (; left > 0; ) {
        left -= 1;
        await caller.call();
      }
    }),
  );
  const after = clocks(target);
  for (const caller of callers) caller.close();
  return (ownCpuMs(before, after) * 1000) / calls;
}

interface Clocks {
  at: number;
  /** Of this process. */
  own: number;
  machine: number;
  cpu: Record<string, number>;
}

function clocks(target: Target): Clocks {
  const { user, system } = process.cpuUsage();
  return {
    at: performance.now(),
    own: (user + system) / 1000,
    machine: machineCpuMs(),
    cpu: Object.fromEntries(Object.entries(target.pids()).map(([name, pid]) => [name, cpuMs(pid)])),
  };
}

function summarize(latencies: number[], before: Clocks, after: Clocks): Omit<Load, 'errors'> {
  const calls = latencies.length;
  const ms = after.at - before.at;
  const used = usedCpuMs(before, after);
  const others = after.machine - before.machine - (after.own - before.own) - sum(used);
  return {
    calls,
    callsPerSecond: (calls * 1000) / ms,
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
    cpuUs: Object.fromEntries(used.map(([name, cpu]) => [name, (cpu * 1000) / calls])),
    ownCpuUs: (ownCpuMs(before, after) * 1000) / calls,
    others: Math.max(0, others / ms),
  };
}

/** Between two looks, by process. */
function usedCpuMs(before: Clocks, after: Clocks): [name: string, ms: number][] {
  return Object.entries(after.cpu).map(([name, cpu]) => [name, cpu - (before.cpu[name] ?? 0)]);
}

function ownCpuMs(before: Clocks, after: Clocks): number {
  return sum(usedCpuMs(before, after).filter(([name]) => name !== 'server'));
}

function sum(cpu: [name: string, ms: number][]): number {
  return cpu.reduce((total, [, ms]) => total + ms, 0);
}

/** The middle one of each figure, over rounds. */
export function medianLoad(rounds: readonly Load[]): Load {
  const of = (figure: (load: Load) => number) => percentile(rounds.map(figure), 0.5);
  const names = Object.keys(rounds[0]?.cpuUs ?? {});
  return {
    calls: rounds.reduce((sum, { calls }) => sum + calls, 0),
    errors: rounds.reduce((sum, { errors }) => sum + errors, 0),
    callsPerSecond: of(load => load.callsPerSecond),
    p50: of(load => load.p50),
    p99: of(load => load.p99),
    cpuUs: Object.fromEntries(names.map(name => [name, of(load => load.cpuUs[name] ?? 0)])),
    ownCpuUs: of(load => load.ownCpuUs),
    others: of(load => load.others),
  };
}

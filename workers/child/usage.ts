import type { Service } from '../../mesh/registry.ts';
import { processes } from './orphans.ts';
import { proportionalBytes } from './process-table.ts';

/** What all processes of one child use together. */
export interface Usage {
  rssBytes: number;
  /** Of those that live, and of their children that they have waited for. */
  cpuSeconds: number;
  processes: number;
}

export interface Excess {
  cause: 'oom' | 'processes';
  /** In words: "used 1100 MB of 1024 MB (limits.memory_mb)". */
  reason: string;
}

interface Watched {
  tag: string;
  limits: Service['limits'];
  onUsage(usage: Usage): void;
  onExcess(excess: Excess): void;
}

export const NO_USAGE: Usage = { rssBytes: 0, cpuSeconds: 0, processes: 0 };

const LOOK_MS = 1000;
/** A server that is near a limit could be far beyond it a second later. */
const CLOSE_LOOK_MS = 250;
const NEAR = 0.5;
const MB = 1024 * 1024;

const watched = new Set<Watched>();
let looking = false;

/** Looks at a child's processes about once a second, and says when they use too much. Returns what ends it. */
export function watchUsage(child: Watched): () => void {
  watched.add(child);
  if (!looking) lookAfter(CLOSE_LOOK_MS);
  return () => {
    watched.delete(child);
  };
}

function lookAfter(ms: number): void {
  looking = true;
  setTimeout(look, ms).unref();
}

function look(): void {
  looking = false;
  if (watched.size === 0) return;
  processes.refresh();
  let near = false;
  for (const child of [...watched]) {
    const family = processes.family(child.tag);
    const usage = {
      rssBytes: family.reduce((sum, { rssBytes }) => sum + rssBytes, 0),
      cpuSeconds: family.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
      processes: family.length,
    };
    child.onUsage(usage);
    const { memory_mb, processes: most } = child.limits;
    if (usage.rssBytes > NEAR * memory_mb * MB || usage.processes > NEAR * most) near = true;
    const excess = findExcess(usage, child.limits, () => exactBytes(family));
    if (excess) child.onExcess(excess);
  }
  lookAfter(near ? CLOSE_LOOK_MS : LOOK_MS);
}

/** RSS counts what processes share once for each of them, so it only raises the suspicion. */
function findExcess(usage: Usage, limits: Service['limits'], exact: () => number): Excess | undefined {
  const { processes: most, memory_mb } = limits;
  if (usage.processes > most) {
    const reason = `used ${usage.processes} processes of ${most} (limits.processes)`;
    return { cause: 'processes', reason };
  }
  if (usage.rssBytes <= memory_mb * MB) return undefined;
  const used = exact();
  if (used <= memory_mb * MB) return undefined;
  return { cause: 'oom', reason: `used ${Math.ceil(used / MB)} MB of ${memory_mb} MB (limits.memory_mb)` };
}

function exactBytes(family: readonly { pid: number; rssBytes: number }[]): number {
  return family.reduce((sum, { pid, rssBytes }) => sum + (proportionalBytes(pid) ?? rssBytes), 0);
}

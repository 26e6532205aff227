import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

/** What the system says of processes, of this machine (Linux). */

const TICK_MS = 10;
const QUIET_SAMPLE_MS = 300;
/** Of user, nice, system, irq and softirq in the first line of /proc/stat. */
const BUSY_FIELDS = [1, 2, 3, 6, 7] as const;

/** Processor time of all threads that it has, in ms, to the nanosecond; /proc/<pid>/stat has ticks of 10 ms. */
export function cpuMs(pid: number): number {
  let sum = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      sum += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    } catch {
      // A thread that has ended since.
    }
  }
  return sum / 1_000_000;
}

/** Resident memory in MB. */
export function rssMb(pid: number): number {
  return statusMb(pid, 'VmRSS');
}

/** The most that it ever was. */
export function peakRssMb(pid: number): number {
  return statusMb(pid, 'VmHWM');
}

/** Processor time that the whole machine has used, in ms. */
export function machineCpuMs(): number {
  const fields = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]?.trim().split(/\s+/).map(Number) ?? [];
  return BUSY_FIELDS.reduce((sum, field) => sum + (fields[field] ?? 0), 0) * TICK_MS;
}

/** Waits until others leave the machine alone (a quarter of a processor), at most so long. */
export async function quietMachine(maxMs: number): Promise<void> {
  const deadline = Date.now() + maxMs;
  do {
    const before = machineCpuMs();
    await pause(QUIET_SAMPLE_MS);
    if (machineCpuMs() - before < QUIET_SAMPLE_MS / 4) return;
  } while (Date.now() < deadline);
}

function statusMb(pid: number, field: string): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kb = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1];
  if (kb === undefined) throw new Error(`/proc/${pid}/status has no ${field}: the process has ended`);
  return Number(kb) / 1024;
}

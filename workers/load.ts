import { readFileSync } from 'node:fs';
import type { LoadReport } from '../mesh/load-report.ts';

export interface LoadMeter {
  /** One call ended; `ms` is its time in the server. */
  observe(ms: number): void;
  report(): LoadReport;
  stop(): void;
}

interface LoadMeterOptions {
  /** Of the worker and its server together. */
  memoryLimitMb: number;
  serverPid(): number | undefined;
  inFlight(): number;
  queueDepth(): number;
  breakerOpen(): boolean;
}

const SAMPLE_MS = 1000;
/** Share of the newest call in the running mean: about the last twenty calls count. */
const NEWEST = 0.1;
const PAGE_BYTES = 4096;

/** Measures what the worker reports of itself: memory and CPU once a second, the rest as it is. */
export function createLoadMeter({
  memoryLimitMb,
  serverPid,
  inFlight,
  queueDepth,
  breakerOpen,
}: LoadMeterOptions): LoadMeter {
  let latencyMs = 0;
  let cpu = 0;
  let memory = 0;
  let before = process.cpuUsage();
  let since = performance.now();

  const sample = () => {
    const spent = process.cpuUsage(before);
    const now = performance.now();
    cpu = (spent.user + spent.system) / 1000 / (now - since);
    before = process.cpuUsage();
    since = now;
    const bytes = process.memoryUsage.rss() + residentBytes(serverPid());
    memory = bytes / (memoryLimitMb * 1024 * 1024);
  };
  sample();
  const timer = setInterval(sample, SAMPLE_MS).unref();

  return {
    observe(ms) {
      latencyMs = latencyMs === 0 ? ms : latencyMs + NEWEST * (ms - latencyMs);
    },
    report: () => ({
      cpu,
      memory,
      latencyMs,
      inFlight: inFlight(),
      queueDepth: queueDepth(),
      breakerOpen: breakerOpen(),
    }),
    stop: () => clearInterval(timer),
  };
}

/** Memory of a process by Linux's /proc; 0 where there is none. */
function residentBytes(pid: number | undefined): number {
  if (pid === undefined) return 0;
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE_BYTES;
  } catch {
    return 0;
  }
}

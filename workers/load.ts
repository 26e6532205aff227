import type { LoadReport } from '../mesh/load-report.ts';

export interface LoadMeter {
  /** One call ended; `ms` is its time in the server. */
  observe(ms: number): void;
  report(): LoadReport;
  /** Of the last calls; undefined before the first. */
  latencies(): Latencies | undefined;
  stop(): void;
}

/** Milliseconds in the server. */
export interface Latencies {
  p50: number;
  p95: number;
}

interface LoadMeterOptions {
  /** Of the worker and its server together. */
  memoryLimitMb: number;
  /** Resident memory of the server and all that it has started. */
  serverBytes(): number;
  inFlight(): number;
  queueDepth(): number;
  breakerOpen(): boolean;
}

const SAMPLE_MS = 1000;
/** Share of the newest call in the running mean: about the last twenty calls count. */
const NEWEST = 0.1;
/** Calls that the percentiles are of. */
const WINDOW = 512;

/** Measures what the worker reports of itself: memory and CPU once a second, the rest as it is. */
export function createLoadMeter({
  memoryLimitMb,
  serverBytes,
  inFlight,
  queueDepth,
  breakerOpen,
}: LoadMeterOptions): LoadMeter {
  let latencyMs = 0;
  const window = new Float64Array(WINDOW);
  let calls = 0;
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
    const bytes = process.memoryUsage.rss() + serverBytes();
    memory = bytes / (memoryLimitMb * 1024 * 1024);
  };
  sample();
  const timer = setInterval(sample, SAMPLE_MS).unref();

  return {
    observe(ms) {
      window[calls % WINDOW] = ms;
      calls += 1;
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
    latencies() {
      if (calls === 0) return undefined;
      const sorted = window.slice(0, Math.min(calls, WINDOW)).sort();
      const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
      return { p50: at(0.5), p95: at(0.95) };
    },
    stop: () => clearInterval(timer),
  };
}

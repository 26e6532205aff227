import { isObject } from './jsonrpc.ts';

/** What an instance says of its load with each answer (ORCA, Open Request Cost Aggregation, native HTTP format). */
export interface LoadReport {
  /** 0 to 1, of one core. */
  cpu: number;
  /** 0 to 1 and beyond, of limits.memory_mb. */
  memory: number;
  /** Calls inside the MCP server. */
  inFlight: number;
  /** Calls that wait for a place there. */
  queueDepth: number;
  /** Recent time of a call in milliseconds. */
  latencyMs: number;
  breakerOpen: boolean;
}

export const LOAD_HEADER = 'endpoint-load-metrics';

const FORMAT = 'JSON ';

export function writeLoadReport(report: LoadReport): string {
  const { cpu, memory, inFlight, queueDepth, latencyMs, breakerOpen } = report;
  const metrics = `"in_flight":${inFlight},"queue_depth":${queueDepth},"latency_ms":${round(latencyMs)},"breaker":${breakerOpen ? 1 : 0}`;
  return `${FORMAT}{"cpu_utilization":${round(cpu)},"mem_utilization":${round(memory)},"named_metrics":{${metrics}}}`;
}

/** undefined for what is no report: it comes from the network, so every number is checked. */
export function readLoadReport(header: unknown): LoadReport | undefined {
  if (typeof header !== 'string') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(header.startsWith(FORMAT) ? header.slice(FORMAT.length) : header);
  } catch {
    return undefined;
  }
  if (!isObject(value)) return undefined;
  const named = isObject(value.named_metrics) ? value.named_metrics : {};
  return {
    cpu: amount(value.cpu_utilization),
    memory: amount(value.mem_utilization),
    inFlight: amount(named.in_flight),
    queueDepth: amount(named.queue_depth),
    latencyMs: amount(named.latency_ms),
    breakerOpen: amount(named.breaker) >= 1,
  };
}

function amount(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : 0;
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

import { isObject } from '../mesh/jsonrpc.ts';
import { type LoadReport, readLoadReport } from '../mesh/load-report.ts';

/** How one request through the gateway ended. */
export interface Outcome {
  callId: string;
  service: string;
  /** What the client got. */
  status: number;
  /** Instances that were tried, in order; all but the last refused the connection. */
  tried: string[];
  /** Milliseconds from the request's first to the answer's last byte. */
  latencyMs: number;
  /** Milliseconds until the instance began to answer; undefined when none did. */
  answeredMs: number | undefined;
  /** What that instance said of its load. */
  report: LoadReport | undefined;
}

/** The outcome of a routed request; undefined for one that the plugin answered itself. */
export function readOutcome(serialized: string): Outcome | undefined {
  const log: unknown = JSON.parse(serialized);
  if (!isObject(log) || !isObject(log.mesh) || !isObject(log.mesh.record)) return undefined;
  const { call_id, service, instances } = log.mesh.record;
  if (typeof call_id !== 'string' || typeof service !== 'string' || !Array.isArray(instances))
    return undefined;
  const tries = Array.isArray(log.tries) ? log.tries.length : 0;
  return {
    callId: call_id,
    service,
    status: numberAt(log.response, 'status'),
    tried: instances.slice(0, tries).map(String),
    latencyMs: numberAt(log.latencies, 'request'),
    answeredMs: log.source === 'service' || log.upstream_status ? answered(log.latencies) : undefined,
    report: readLoadReport(log.mesh.load),
  };
}

/** Kong says -1 when it never came so far. */
function answered(latencies: unknown): number | undefined {
  const ms = numberAt(latencies, 'proxy');
  return ms >= 0 ? ms : undefined;
}

function numberAt(value: unknown, key: string): number {
  const found = isObject(value) ? value[key] : undefined;
  return typeof found === 'number' ? found : 0;
}

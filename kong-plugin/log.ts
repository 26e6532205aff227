import { isObject, type JsonObject } from '../mesh/jsonrpc.ts';
import { type LoadReport, readLoadReport } from '../mesh/load-report.ts';
import type { SpanRecord } from './handoff.ts';

/** How one request through the gateway ended. */
export interface Outcome {
  callId: string;
  /** Of what the call held meanwhile. */
  lease: string;
  service: string;
  /** What the client got. */
  status: number;
  /** In order; all but the last refused the connection. */
  tries: Attempt[];
  /** Milliseconds from the request's first to the answer's last byte. */
  latencyMs: number;
  /** Milliseconds until the instance began to answer; undefined when none did. */
  answeredMs: number | undefined;
  /** What that instance said of its load. */
  report: LoadReport | undefined;
  /** A listening stream: it stood for as long as its client wanted it, which says nothing of anybody's speed. */
  stream?: true;
  /** Number of the decision, where decisions are kept. */
  decision?: number;
  /** Where calls are traced. */
  trace?: TracedOutcome;
}

export interface TracedOutcome extends SpanRecord {
  method: string;
  /** As the client sent it, without the query. */
  path: string;
  /** Milliseconds since the epoch. */
  startedAt: number;
  /** Milliseconds in Kong before the first try. */
  kongMs: number;
}

export interface Attempt {
  instance: string;
  /** `unknown`: the client went away first. */
  result: 'answered' | 'failed' | 'unknown';
  /** Of a failure, in words. */
  reason: string;
}

const BAD_GATEWAY = 502;
const GATEWAY_TIMEOUT = 504;
const CLIENT_CLOSED = 499;

/** The outcome of a routed request; undefined for one that the plugin answered itself. */
export function readOutcome(serialized: string): Outcome | undefined {
  const log: unknown = JSON.parse(serialized);
  if (!isObject(log) || !isObject(log.mesh) || !isObject(log.mesh.record)) return undefined;
  const { call_id, lease, service, instances, decision, trace } = log.mesh.record;
  if (
    typeof call_id !== 'string' ||
    typeof lease !== 'string' ||
    typeof service !== 'string' ||
    !Array.isArray(instances)
  )
    return undefined;
  return {
    callId: call_id,
    lease,
    service,
    status: numberAt(log.response, 'status'),
    tries: readTries(log, instances.map(String)),
    latencyMs: numberAt(log.latencies, 'request'),
    answeredMs: isAnswered(log) ? Math.max(0, numberAt(log.latencies, 'proxy')) : undefined,
    report: readLoadReport(log.mesh.load),
    ...(isStream(log) ? { stream: true } : {}),
    ...(typeof decision === 'number' ? { decision } : {}),
    ...(isObject(trace) ? { trace: readTrace(trace, log) } : {}),
  };
}

function readTrace({ self, parent }: JsonObject, log: JsonObject): TracedOutcome {
  const { method, uri } = isObject(log.request) ? log.request : {};
  return {
    self: String(self),
    ...(typeof parent === 'string' ? { parent } : {}),
    method: String(method),
    path: String(uri).split('?', 1)[0] ?? '',
    startedAt: numberAt(log, 'started_at'),
    kongMs: numberAt(log.latencies, 'kong'),
  };
}

/** What was asked for by GET (2025-11-25) or by its method (2026-07-28), and came as events. */
function isStream({ request, response }: JsonObject): boolean {
  const { method, headers: asked } = isObject(request) ? request : {};
  const answered =
    isObject(response) && isObject(response.headers) ? response.headers['content-type'] : undefined;
  if (typeof answered !== 'string' || !answered.startsWith('text/event-stream')) return false;
  return method === 'GET' || (isObject(asked) && asked['mcp-method'] === 'subscriptions/listen');
}

/** `tries[i]` is the try at the decision's i-th target. */
function readTries(log: JsonObject, instances: string[]): Attempt[] {
  const tries = Array.isArray(log.tries) ? log.tries.slice(0, instances.length) : [];
  return tries.map((attempt: unknown, i): Attempt => {
    const instance = instances[i] as string;
    const failedToConnect = i < tries.length - 1 || (isObject(attempt) && attempt.state === 'failed');
    if (failedToConnect) return { instance, result: 'failed', reason: 'the connection failed' };
    return { instance, ...readLast(log) };
  });
}

function readLast(log: JsonObject): Omit<Attempt, 'instance'> {
  const status = numberAt(log.response, 'status');
  const broken = status === BAD_GATEWAY || status === GATEWAY_TIMEOUT;
  if (isAnswered(log)) {
    return broken
      ? { result: 'failed', reason: `it answered ${status}` }
      : { result: 'answered', reason: '' };
  }
  if (status === CLIENT_CLOSED) return { result: 'unknown', reason: 'the client went away' };
  const lost = 'the connection failed, or was lost before the answer';
  return { result: 'failed', reason: status === GATEWAY_TIMEOUT ? 'it did not answer in time' : lost };
}

/** Kong's serializer says `kong` for its own answers. */
function isAnswered(log: JsonObject): boolean {
  return log.source === 'upstream';
}

function numberAt(value: unknown, key: string): number {
  const found = isObject(value) ? value[key] : undefined;
  return typeof found === 'number' ? found : 0;
}

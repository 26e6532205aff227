import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client';
import { SERVER_REQUESTS } from '../mesh/eras.ts';
import type { ErrorCode } from '../mesh/errors.ts';
import type { RpcRequest } from '../mesh/jsonrpc.ts';
import { METRIC_PREFIX } from '../mesh/names.ts';
import { addCount, addGauge } from '../mesh/read-metrics.ts';
import type { Service } from '../mesh/registry.ts';
import { SECONDS } from './metrics/buckets.ts';
import { CallMetrics, type CallResult } from './metrics/calls.ts';
import { describeServer, type MeasuredServer } from './metrics/server.ts';

export interface WorkerMetrics {
  /** One finished request to the server: MCP method, `ok` or an error code, seconds. */
  observe(method: string, outcome: string, seconds: number): void;
  /** A call is tried again, because of this error. */
  retried(reason: ErrorCode): void;
  /** A call waited so long, in seconds, for its place in the server, and got it or gave up. */
  waited(seconds: number): void;
  /** One try at the server ended after so long, in seconds. */
  executed(seconds: number): void;
  /** A caller's request has ended, refused ones included. */
  called(request: RpcRequest, result: CallResult): void;
  /** A limit or quota was decided without the store that counts it. */
  storeFailed(): void;
  /** Shows from now on what these say of themselves, too; to be called once. */
  follow(sources: WorkerSources): void;
  /** The metrics in Prometheus' text format. */
  expose(): Promise<string>;
  contentType: string;
}

/** Parts of the worker that are looked at when somebody asks for the metrics. */
export interface WorkerSources {
  service: Pick<Service, 'concurrency' | 'queue' | 'limits' | 'timeout_ms' | 'tool_timeouts'>;
  sessions: { readonly size: number; readonly streams: number };
  /** Those of `subscriptions/listen`. */
  listens: { readonly size: number };
  pool: { readonly size: number };
  audit: { readonly dropped: number } | undefined;
}

/** Callers choose the method, so only these become label values: cardinality stays bounded. */
const METHODS = new Set(['initialize', 'ping', 'server/discover', ...SERVER_REQUESTS]);
const PREFIX = `${METRIC_PREFIX}worker_`;

interface WorkerMetricsOptions {
  service: string;
  server: MeasuredServer;
  /** Requests inside all servers of the worker, the shared one and others. */
  inFlight(): number;
  /** Requests that wait for a place there, or for their next try. */
  queued(): number;
}

/**
 * What a worker counts, and what it is read of when somebody asks. Nothing is labelled by principal, session or call:
 * the audit log and traces tell those apart.
 */
export function createWorkerMetrics({
  service,
  server,
  inFlight,
  queued,
}: WorkerMetricsOptions): WorkerMetrics {
  const register = new Registry();
  register.setDefaultLabels({ service });
  collectDefaultMetrics({ register, prefix: METRIC_PREFIX });
  const registers = [register];
  const duration = new Histogram({
    name: `${PREFIX}request_duration_seconds`,
    help: 'Time from the request to its answer, by MCP method and outcome (ok, or the error code)',
    labelNames: ['method', 'outcome'],
    buckets: SECONDS,
    registers,
  });
  const retries = new Counter({
    name: `${PREFIX}retries_total`,
    help: 'Calls tried again, by the error that made it necessary',
    labelNames: ['reason'],
    registers,
  });
  const wait = new Histogram({
    name: `${PREFIX}queue_wait_seconds`,
    help: 'Time that a call waited for its place in the MCP server, until it got it or gave up',
    buckets: SECONDS,
    registers,
  });
  const execution = new Histogram({
    name: `${PREFIX}execution_seconds`,
    help: 'Time of one try in the MCP server',
    buckets: SECONDS,
    registers,
  });
  const storeFailures = new Counter({
    name: `${PREFIX}limit_store_failures_total`,
    help: 'Limits and quotas that were decided without the store that counts them',
    registers,
  });
  const calls = new CallMetrics(registers);
  addGauge(`${PREFIX}in_flight`, 'Requests inside the MCP server', inFlight, registers);
  const waiting = 'Requests that wait for a place in the MCP server, or for their next try';
  addGauge(`${PREFIX}queue_depth`, waiting, queued, registers);
  describeServer(server, registers);
  return {
    observe: (method, outcome, seconds) =>
      duration.observe({ method: METHODS.has(method) ? method : 'other', outcome }, seconds),
    retried: reason => retries.inc({ reason }),
    waited: seconds => wait.observe(seconds),
    executed: seconds => execution.observe(seconds),
    called: (request, result) => calls.count(request, result),
    storeFailed: () => storeFailures.inc(),
    follow(sources) {
      calls.limit(sources.service, registers);
      describeWorker(sources, registers);
    },
    expose: () => register.metrics(),
    contentType: register.contentType,
  };
}

function describeWorker(
  { service, sessions, listens, pool, audit }: WorkerSources,
  registers: Registry[],
): void {
  const { concurrency, queue, limits } = service;
  addGauge(
    `${PREFIX}concurrency_limit`,
    'Calls that may be inside the MCP server at once',
    () => concurrency,
    registers,
  );
  addGauge(`${PREFIX}queue_limit`, 'Calls that may wait beyond those', () => queue, registers);
  const memory = () => limits.memory_mb * 1024 * 1024;
  addGauge(`${PREFIX}child_memory_limit_bytes`, 'Memory at which the MCP server is ended', memory, registers);
  const known = () => sessions.size;
  addGauge(
    `${PREFIX}sessions`,
    'Legacy sessions that this worker knows of, used within 5 minutes',
    known,
    registers,
  );
  const streams = () => sessions.streams + listens.size;
  addGauge(
    `${PREFIX}streams`,
    'Listening streams that are open: GET, and subscriptions/listen',
    streams,
    registers,
  );
  const servers = () => pool.size;
  addGauge(
    `${PREFIX}pool_servers`,
    'MCP servers of single sessions and calls, spares included',
    servers,
    registers,
  );
  const lost = () => audit?.dropped ?? 0;
  addCount(`${PREFIX}audit_entries_lost_total`, 'Audit entries that were not written', lost, registers);
}

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { SERVER_REQUESTS } from '../mesh/eras.ts';
import { METRIC_PREFIX } from '../mesh/names.ts';
import type { StdioServer } from './stdio-server.ts';

export interface WorkerMetrics {
  /** One finished call: MCP method, `ok` or an error code, seconds. */
  observe(method: string, outcome: string, seconds: number): void;
  /** The metrics in Prometheus' text format. */
  expose(): Promise<string>;
  contentType: string;
}

/** Callers choose the method, so only these become label values: cardinality stays bounded. */
const METHODS = new Set(['initialize', 'ping', 'server/discover', ...SERVER_REQUESTS]);

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

interface WorkerMetricsOptions {
  service: string;
  server: StdioServer;
  /** Requests inside all servers of the worker, the shared one and others. */
  inFlight(): number;
  /** Requests that wait for a place there. */
  queued(): number;
}

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
    name: `${METRIC_PREFIX}worker_request_duration_seconds`,
    help: 'Time from the request to its answer, by MCP method and outcome (ok, or the error code)',
    labelNames: ['method', 'outcome'],
    buckets: SECONDS,
    registers,
  });
  new Gauge({
    name: `${METRIC_PREFIX}worker_in_flight`,
    help: 'Requests inside the MCP server',
    registers,
    collect() {
      this.set(inFlight());
    },
  });
  new Gauge({
    name: `${METRIC_PREFIX}worker_queue_depth`,
    help: 'Requests that wait for a place in the MCP server',
    registers,
    collect() {
      this.set(queued());
    },
  });
  new Gauge({
    name: `${METRIC_PREFIX}worker_child_up`,
    help: '1 when the MCP server has shaken hands',
    registers,
    collect() {
      this.set(server.state === 'ready' ? 1 : 0);
    },
  });
  new Counter({
    name: `${METRIC_PREFIX}worker_child_restarts_total`,
    help: 'Times the MCP server was started again',
    registers,
    collect() {
      this.reset();
      this.inc(server.restarts);
    },
  });
  return {
    observe: (method, outcome, seconds) =>
      duration.observe({ method: METHODS.has(method) ? method : 'other', outcome }, seconds),
    expose: () => register.metrics(),
    contentType: register.contentType,
  };
}

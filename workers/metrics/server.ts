import { Counter, Gauge, type Registry } from 'prom-client';
import { METRIC_PREFIX } from '../../mesh/names.ts';
import { addCount, addGauge } from '../../mesh/read-metrics.ts';
import type { StdioServer } from '../stdio-server.ts';

/** What is read of the MCP server. */
export type MeasuredServer = Pick<StdioServer, 'state' | 'stats' | 'info' | 'breakerOpen'>;

/** The server chooses its name and version: a label of a megabyte would be scraped every few seconds. */
const LABEL_MAX = 64;
const PREFIX = `${METRIC_PREFIX}worker_`;

/** State and use of the MCP server that the worker shares between its callers, read at each scrape. */
export function describeServer(server: MeasuredServer, registers: Registry[]): void {
  addGauge(
    `${PREFIX}child_up`,
    '1 when the MCP server has shaken hands',
    () => Number(server.state === 'ready'),
    registers,
  );
  const parked = () => Number(server.stats.parked);
  addGauge(
    `${PREFIX}child_parked`,
    '1 when it failed so often that it is tried only every few minutes',
    parked,
    registers,
  );
  const resident = () => server.stats.rssBytes;
  addGauge(
    `${PREFIX}child_rss_bytes`,
    'Resident memory of all processes of the MCP server',
    resident,
    registers,
  );
  addGauge(
    `${PREFIX}child_processes`,
    'Processes of the MCP server',
    () => server.stats.processes,
    registers,
  );
  const uptime = () => server.stats.uptimeSeconds;
  addGauge(
    `${PREFIX}child_uptime_seconds`,
    'Time since the MCP server was ready; 0 when it is not',
    uptime,
    registers,
  );
  const breaker = () => Number(server.breakerOpen);
  addGauge(
    `${PREFIX}breaker_open`,
    '1 while the breaker round the MCP server refuses calls',
    breaker,
    registers,
  );
  const cpu = createCpuMeter(server);
  addCount(
    `${PREFIX}child_cpu_seconds_total`,
    'Processor time of the MCP servers, former runs included',
    cpu,
    registers,
  );
  new Counter({
    name: `${PREFIX}child_restarts_total`,
    help: 'Times the MCP server was started again, by why the run before ended',
    labelNames: ['reason'],
    registers,
    collect() {
      this.reset();
      // Zeros, too: a first restart that comes with its series is no increase to Prometheus.
      for (const [reason, count] of Object.entries(server.stats.restarts)) this.inc({ reason }, count);
    },
  });
  new Gauge({
    name: `${PREFIX}child_info`,
    help: 'Always 1; what the MCP server says of itself, and the era of its protocol',
    labelNames: ['name', 'version', 'era', 'protocol'],
    registers,
    collect() {
      this.reset();
      const { info } = server;
      if (!info) return;
      const { name, version } = info.serverInfo;
      const { era, protocolVersion: protocol } = info;
      this.set({ name: label(name), version: label(version), era, protocol: label(protocol) }, 1);
    },
  });
}

/**
 * Adds up what the runs used. A run's own figure falls when one of its processes ends before anybody waited for it, or
 * when the next run begins; a counter that falls is one that began anew to Prometheus, which then counts all of it again.
 */
function createCpuMeter(server: MeasuredServer): () => number {
  let total = 0;
  let generation = 0;
  let seen = 0;
  return () => {
    const { stats } = server;
    if (stats.generation !== generation) seen = 0;
    generation = stats.generation;
    total += Math.max(0, stats.cpuSeconds - seen);
    seen = stats.cpuSeconds;
    return total;
  };
}

function label(value: unknown): string {
  return String(value ?? '').slice(0, LABEL_MAX);
}

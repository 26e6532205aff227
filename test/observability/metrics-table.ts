import { writeFileSync } from 'node:fs';
import { createBalancer } from '../../kong-plugin/balancer/balancer.ts';
import type { KnownService } from '../../kong-plugin/discovery.ts';
import { Ejection } from '../../kong-plugin/ejection.ts';
import { createGatewayMetrics } from '../../kong-plugin/metrics.ts';
import type { Instance } from '../../mesh/consul.ts';
import { type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import { METRIC_PREFIX } from '../../mesh/names.ts';
import { createWorkerMetrics } from '../../workers/metrics.ts';
import { scriptedService, toolCall } from '../workers/helpers.ts';
import { readSamples } from './metrics-text.ts';
import { FOLDER } from './prometheus-config.ts';

/** `node test/observability/metrics-table.ts` writes config/prometheus/METRICS.md; a test keeps it equal to the code. */

export interface MetricRow {
  name: string;
  type: string;
  /** Of its samples; `service` of a worker's is on all of them. */
  labels: string[];
  help: string;
}

export const METRICS_FILE = `${FOLDER}/METRICS.md`;
const HEAD = `# Metrics

Written by \`node test/observability/metrics-table.ts\` from the code.

A worker serves \`/metrics\` at its own port; all of its series have the label \`service\`. A gateway's plugin server
serves them at \`MESH_GATEWAY_METRICS_PORT\`, which has no default, on loopback. No label has the name of a caller, a
session or a call, and the others are bounded: \`tool\` has the first 200 names that were called of the server's own list,
128 characters at most, and anything else is \`other\`; \`method\` has MCP's own; \`status\` what HTTP knows; \`service\`
and \`instance\` what Consul has now.

Prometheus' text format only: prom-client 15.1.3 takes \`_total\` off its counters for good when it is asked for
OpenMetrics once, so exemplars, which only that has, cannot be offered beside it.
`;

export async function metricsDocument(): Promise<string> {
  const worker = readRows(await workerText());
  const gateway = readRows(await gatewayText());
  const own = (rows: MetricRow[]) => rows.filter(row => !isOfProcess(row));
  return [
    HEAD,
    section('Gateway', own(gateway)),
    section('Worker', own(worker)),
    `## Process\n\nOf gateways and workers alike (prom-client's own).\n\n${processTable(worker.filter(isOfProcess))}`,
  ].join('\n');
}

/** All metrics of gateway and worker. */
export async function metricRows(): Promise<MetricRow[]> {
  return [...readRows(await gatewayText()), ...readRows(await workerText())];
}

function section(title: string, rows: MetricRow[]): string {
  const lines = rows.map(({ name, type, labels, help }) => {
    const shown = labels
      .filter(label => title !== 'Worker' || label !== 'service')
      .map(label => `\`${label}\``);
    return `| \`${name}\` | ${type} | ${shown.join(', ') || '–'} | ${help} |`;
  });
  return `## ${title}\n\n| Name | Type | Labels | Meaning |\n|---|---|---|---|\n${lines.join('\n')}\n`;
}

function processTable(rows: MetricRow[]): string {
  const lines = rows.map(({ name, type, help }) => `| \`${name}\` | ${type} | ${help.replace(/\.$/, '')} |`);
  return `| Name | Type | Meaning |\n|---|---|---|\n${lines.join('\n')}\n`;
}

function isOfProcess({ name }: MetricRow): boolean {
  return name.startsWith(`${METRIC_PREFIX}nodejs_`) || name.startsWith(`${METRIC_PREFIX}process_`);
}

function readRows(text: string): MetricRow[] {
  const samples = readSamples(text);
  return [...text.matchAll(/^# HELP (\S+) (.*)\n# TYPE \S+ (\S+)$/gm)].map(
    ([, name = '', help = '', type = '']) => {
      const own = samples.filter(
        sample => sample.name.replace(/_(bucket|sum|count)$/, '') === name || sample.name === name,
      );
      const labels = new Set(own.flatMap(sample => Object.keys(sample.labels)));
      labels.delete('le');
      return { name, type, labels: [...labels].toSorted(), help };
    },
  );
}

/** With one sample, at least, of each metric. */
async function workerText(): Promise<string> {
  const service = scriptedService();
  const info = { serverInfo: { name: 'n', version: '1' }, era: 'legacy', protocolVersion: '2025-11-25' };
  const restarts = { spawn: 0, exit: 0, signal: 0, oom: 0, processes: 0, hung: 0, handshake: 0, recycle: 0 };
  const stats = {
    generation: 1,
    restarts,
    rssBytes: 1,
    cpuSeconds: 1,
    processes: 1,
    uptimeSeconds: 1,
    parked: false,
  };
  const metrics = createWorkerMetrics({
    service: service.name,
    server: {
      state: 'ready',
      breakerOpen: false,
      info,
      stats: { ...stats, pid: 1, lastError: undefined },
    } as never,
    inFlight: () => 0,
    queued: () => 0,
  });
  const none = { size: 0, streams: 0 };
  metrics.follow({ service, sessions: none, listens: none, pool: none, audit: undefined });
  metrics.observe('tools/call', 'ok', 1);
  metrics.retried('child_crashed');
  metrics.waited(1);
  metrics.executed(1);
  metrics.storeFailed();
  const call = { seconds: 1, bytesOut: 2, continued: false, units: 1, nearEnd: true, isListed: () => true };
  const request = readMessage(JSON.stringify(toolCall(1, 'echo'))) as RpcRequest;
  metrics.called(request, { ...call, answered: 'ok', error: undefined });
  metrics.called(request, { ...call, answered: undefined, error: 'timeout' });
  return metrics.expose();
}

async function gatewayText(): Promise<string> {
  const instances = [{ id: 'i', status: 'passing', reason: '', meta: {} } as unknown as Instance];
  const services = [{ name: 's', instances, definition: {} } as unknown as KnownService];
  const discovery = { age: () => 0, list: () => services, find: () => services[0] };
  const balancer = createBalancer();
  balancer.lease('c', 'i', 'call', 1);
  const metrics = createGatewayMetrics(undefined, discovery);
  const policy = Object.assign(() => ({ version: 'v' }) as never, { isRefused: () => false });
  const authenticator = { jwksFailures: 0 };
  metrics.follow({ discovery, balancer, ejection: new Ejection(), policy, authenticator, audit: undefined });
  metrics.denied('forbidden');
  metrics.breakerOpened('i');
  const tries = (['failed', 'answered'] as const).map(result => ({ instance: 'i', result, reason: '' }));
  metrics.observe({
    callId: 'c',
    lease: 'l',
    service: 's',
    status: 200,
    tries,
    latencyMs: 1,
    answeredMs: 1,
    report: undefined,
  });
  return metrics.text();
}

if (import.meta.main) writeFileSync(METRICS_FILE, await metricsDocument());

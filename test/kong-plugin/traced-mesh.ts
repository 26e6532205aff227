import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startConsul } from '../../kong/dev/consul.ts';
import { adHocService } from '../../mesh/registry.ts';
import { workerSettings } from '../../mesh/settings.ts';
import { startWorker, type Worker } from '../../workers/worker.ts';
import { closedPort } from '../kong/gateway-helpers.ts';
import { installPlugin, startPluginGateway } from '../plugin-gateway.ts';
import { until } from '../until.ts';
import { silentLog } from '../workers/helpers.ts';
import { tracingTo, WIRETAP } from '../workers/tracing-helpers.ts';

export interface TracedMesh {
  /** Executes a tool through the gateway. */
  execute(
    body: object,
    headers?: Record<string, string>,
  ): Promise<{ status: number; callId: string; json: Answer }>;
  /** Base URL of the gateway. */
  url: string;
  workers: Worker[];
  /** Of the gateway's metrics. */
  metricsUrl: string;
  audit: { gateway: string; workers: string };
  /** Stops gateway and plugin server, as Kong does. Idempotent. */
  stopGateway(): Promise<void>;
}

type Answer = { content: { text: string }[] } & Record<string, unknown>;

interface Options {
  /** Where the gateway's and the workers' spans go. */
  spans?: { gateway?: string; workers?: string };
  instances?: number;
  /** For how long the gateway gathers spans. */
  flushMs?: number;
}

/** The real plugin in the real plugin server, behind the gateway stand-in, with workers of a server that tells what it got. */
export async function startTracedMesh(
  t: TestContext,
  { spans = {}, instances = 1, flushMs = 20 }: Options = {},
): Promise<TracedMesh> {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-traced-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const consul = await startConsul();
  t.after(consul.close);
  const audit = { gateway: join(folder, 'gateway-%p.jsonl'), workers: join(folder, 'workers.jsonl') };
  const workers: Worker[] = [];
  for (let i = 0; i < instances; i += 1) {
    const worker = await startWorker({
      service: adHocService({ name: 'wiretap', command: process.execPath, args: [WIRETAP] }),
      settings: {
        ...workerSettings({}),
        consul: { url: consul.url },
        advertiseAddress: '127.0.0.1',
        drainIdleMs: 0,
        drainDeadlineMs: 2000,
        audit: { path: audit.workers, withArguments: false },
        tracing: spans.workers === undefined ? undefined : tracingTo(spans.workers),
      },
      log: silentLog,
      register: true,
    });
    t.after(() => worker.stop());
    workers.push(worker);
  }
  const metricsPort = await closedPort();
  const gateway = await startPluginGateway(await installPlugin(folder), {
    PATH: process.env.PATH ?? '',
    CONSUL_HTTP_ADDR: consul.url,
    MESH_ACCESS_POLICY: fileURLToPath(new URL('../../config/access.yaml', import.meta.url)),
    MESH_GATEWAY_METRICS_PORT: String(metricsPort),
    MESH_AUDIT_LOG: audit.gateway,
    ...(spans.gateway === undefined
      ? {}
      : { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: spans.gateway, OTEL_BSP_SCHEDULE_DELAY: String(flushMs) }),
  });
  let stopped: Promise<void> | undefined;
  const stopGateway = () => {
    stopped ??= gateway.close();
    return stopped;
  };
  t.after(stopGateway);
  const execute: TracedMesh['execute'] = async (body, headers = {}) => {
    const response = await fetch(`${gateway.url}/api/v1/mcp/wiretap/execute`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
    const callId = response.headers.get('x-request-id') ?? '';
    return { status: response.status, callId, json: (await response.json()) as Answer };
  };
  await untilAllServe(gateway.url, instances);
  const metricsUrl = `http://127.0.0.1:${metricsPort}`;
  return { execute, url: gateway.url, workers, metricsUrl, audit, stopGateway };
}

async function untilAllServe(url: string, instances: number): Promise<void> {
  await until('healthy workers', async () => {
    const response = await fetch(`${url}/api/v1/mcp/wiretap/status`);
    const status = (await response.json()) as { healthy?: number };
    return status.healthy === instances;
  });
}

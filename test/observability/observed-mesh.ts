import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { hashApiKey } from '../../mesh/access-policy.ts';
import { CONSUL_TAG } from '../../mesh/names.ts';
import { collectCleanUps } from '../e2e/fleet-harness.ts';
import { type Mesh, startMesh } from '../e2e/mesh-process.ts';
import { type RealConsul, startRealConsul } from '../real-consul.ts';
import { freePort } from '../real-program.ts';
import { knowsConsul, type RealPrometheus, startRealPrometheus } from '../real-prometheus.ts';
import { until } from '../until.ts';
import { SCRIPTED } from '../workers/helpers.ts';
import { compress, FOLDER, ruleFiles } from './prometheus-config.ts';

/** By how much the rules and queries run faster: windows of 5 minutes are 15 s. */
export const FACTOR = 20;

export interface ObservedMesh {
  mesh: Mesh;
  consul: RealConsul;
  prometheus: RealPrometheus;
  /** Folder of what the mesh reads and keeps. */
  folder: string;
  /** The gateway's table of instances, on disk. */
  table: string;
  policyPath: string;
  /** Whether Prometheus finds the workers itself; else this test tells it, with the labels that it would find. */
  byConsul: boolean;
  /** POSTs a tool call; resolves with the status. */
  call(service: string, tool: string, args?: object, key?: string): Promise<number>;
  /** A query with the windows of the shipped rules, made for 20 times the speed. */
  query(expression: string): ReturnType<RealPrometheus['query']>;
  /** Alerts that fire, as `name` or `name service`. */
  firing(): Promise<Set<string>>;
  /** Scrapes one gateway more, and workers of all services but the `hidden` one. */
  configure(options: { alsoGateway?: number; hidden?: string }): Promise<void>;
  addCleanUp(cleanUp: () => unknown): void;
  stop(): Promise<void>;
}

/** Of a caller with limits: 20 requests a minute, 10 calls a day. */
export const LIMITED_KEY = 'mk_limited';

const SCRAPE_MS = 1000;
const services = (folder: string) => {
  const common = { command: process.execPath, args: [SCRIPTED], load_balancer: 'ROUND_ROBIN' };
  return [
    { ...common, name: 'shop', instances: 2, costs: { 'rpc-error': 2 } },
    { ...common, name: 'tight', concurrency: 1, queue: 10 },
    {
      ...common,
      name: 'faulty',
      tool_timeouts: { silent: 200 },
      circuit_breaker: { failure_threshold: 3, recovery_timeout: 5 },
    },
    { ...common, name: 'fragile', env: { MODE: 'die-later', TALLY: join(folder, 'tally') } },
  ];
};
const POLICY = {
  version: 1,
  anonymous: 'everybody',
  api_keys: [
    { id: 'limited', hash: `sha256:${hashApiKey(LIMITED_KEY).toString('hex')}`, roles: ['limited'] },
  ],
  roles: {
    everybody: { allow: [{ service: '*' }] },
    limited: {
      allow: [{ service: 'shop', tools: ['echo', 'rpc-error'] }],
      rate_limit: { requests: 20, window_s: 60 },
      quota: { calls: 10, period: 'day' },
    },
  },
};

/** What `npm start` starts, with a real Consul, and a real Prometheus with the shipped rules in a fraction of their time. */
export async function startObservedMesh(): Promise<ObservedMesh> {
  const cleanUps = collectCleanUps();
  try {
    return await start(cleanUps);
  } catch (error) {
    await cleanUps.run();
    throw error;
  }
}

async function start(cleanUps: ReturnType<typeof collectCleanUps>): Promise<ObservedMesh> {
  const folder = mkdtempSync(join(tmpdir(), 'observed-'));
  cleanUps.add(() => rmSync(folder, { recursive: true, force: true }));
  const { consul, reason } = await startRealConsul();
  if (!consul) throw new Error(reason);
  cleanUps.add(() => consul.close());
  const policyPath = join(folder, 'access.yaml');
  writeFileSync(policyPath, stringify(POLICY));
  const registry = join(folder, 'registry.yaml');
  writeFileSync(registry, stringify({ version: 1, mcp_services: services(folder) }));
  const gatewayPort = await freePort();
  const mesh = await startMesh({
    CONSUL_HTTP_ADDR: consul.url,
    MESH_REGISTRY: registry,
    MESH_ACCESS_POLICY: policyPath,
    MESH_STATE_DIR: folder,
    MESH_AUDIT_LOG: join(folder, 'audit-%p.log'),
    MESH_GATEWAY_METRICS_PORT: String(gatewayPort),
  });
  cleanUps.add(() => mesh.stop());
  const byConsul = await knowsConsul();
  const discovery = byConsul
    ? {
        consul_sd_configs: [{ server: new URL(consul.url).host, tags: [CONSUL_TAG], refresh_interval: '1s' }],
      }
    : { file_sd_configs: [{ files: [followConsul(consul, folder, cleanUps.add)], refresh_interval: '1s' }] };
  const rules = ruleFiles().map((path, i) => {
    const compressed = join(folder, `rules-${i}.yml`);
    writeFileSync(compressed, compress(readFileSync(path, 'utf8'), FACTOR));
    return compressed;
  });
  const config = configOf({ discovery, rules, gateways: [gatewayPort] });
  const prometheus = await startRealPrometheus(config);
  cleanUps.add(() => prometheus.close());
  return {
    mesh,
    consul,
    prometheus,
    folder,
    policyPath,
    byConsul,
    table: join(folder, 'discovery.json'),
    call: (service, tool, args = {}, key) => callTool(`${mesh.url}/api/v1/mcp/${service}`, tool, args, key),
    query: expression => prometheus.query(compress(expression, FACTOR)),
    async firing() {
      const alerts = (await prometheus.alerts()).filter(({ state }) => state === 'firing');
      return new Set(
        alerts.map(({ labels: { alertname, service } }) => [alertname, service].filter(Boolean).join(' ')),
      );
    },
    configure({ alsoGateway, hidden }) {
      const gateways = alsoGateway === undefined ? [gatewayPort] : [gatewayPort, alsoGateway];
      return prometheus.reload(configOf({ discovery, rules, gateways, hidden }));
    },
    addCleanUp: cleanUps.add,
    stop: () => cleanUps.run(),
  };
}

interface ConfigParts {
  /** How workers are found. */
  discovery: object;
  rules: string[];
  gateways: number[];
  hidden?: string | undefined;
}

/** The shipped configuration, with this test's places and times. */
function configOf({ discovery, rules, gateways, hidden }: ConfigParts): string {
  const config = parse(readFileSync(join(FOLDER, 'prometheus.yml'), 'utf8'));
  const interval = `${SCRAPE_MS}ms`;
  config.global = { scrape_interval: interval, scrape_timeout: interval, evaluation_interval: interval };
  config.rule_files = rules;
  for (const job of config.scrape_configs) {
    if (job.job_name === 'mcp-gateway')
      job.static_configs = [{ targets: gateways.map(port => `127.0.0.1:${port}`) }];
    if (job.job_name !== 'mcp-workers') continue;
    delete job.consul_sd_configs;
    Object.assign(job, discovery);
    if (hidden !== undefined)
      job.relabel_configs.push({ source_labels: ['service'], regex: hidden, action: 'drop' });
  }
  return stringify(config);
}

/** Does for a Prometheus without discovery by Consul what that does, with the labels of its documentation. */
function followConsul({ url }: RealConsul, folder: string, after: (cleanUp: () => unknown) => void): string {
  const path = join(folder, 'targets.json');
  writeFileSync(path, '[]');
  let closed = false;
  type Entry = {
    Node: { Node: string };
    Service: { ID: string; Address: string; Port: number; Meta: Record<string, string> };
  };
  const look = async () => {
    const named = (await (await fetch(`${url}/v1/catalog/services`)).json()) as Record<string, string[]>;
    const names = Object.keys(named).filter(name => named[name]?.includes(CONSUL_TAG));
    const answers = await Promise.all(names.map(name => fetch(`${url}/v1/health/service/${name}`)));
    const entries = (await Promise.all(answers.map(answer => answer.json()))).flat() as Entry[];
    const targets = entries.map(({ Node, Service: { ID, Address, Port, Meta } }) => ({
      targets: [`${Address}:${Port}`],
      labels: {
        __meta_consul_node: Node.Node,
        __meta_consul_service_id: ID,
        __meta_consul_service_metadata_mcp_server: Meta.mcp_server,
      },
    }));
    writeFileSync(`${path}.new`, JSON.stringify(targets));
    renameSync(`${path}.new`, path);
  };
  const again = () => {
    if (closed) return;
    look()
      .catch(() => {})
      .finally(() => setTimeout(again, SCRAPE_MS / 2).unref());
  };
  again();
  after(() => {
    closed = true;
  });
  return path;
}

async function callTool(url: string, tool: string, args: object, key?: string): Promise<number> {
  const response = await fetch(`${url}/tools/${tool}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(key === undefined ? {} : { 'x-api-key': key }) },
    body: JSON.stringify(args),
  });
  await response.text();
  return response.status;
}

/** Keeps so many calls under way until it is told to stop; resolves then, when the last has ended. */
export function keepCalling(count: number, call: () => Promise<unknown>): () => Promise<void> {
  let stopped = false;
  const caller = async () => {
    while (!stopped) await call().catch(() => new Promise(resolve => setTimeout(resolve, 100)));
  };
  const callers = Array.from({ length: count }, caller);
  return async () => {
    stopped = true;
    await Promise.all(callers);
  };
}

/** Waits for an alert to fire. */
export async function untilFiring({ firing, prometheus }: ObservedMesh, name: string): Promise<void> {
  let last = '';
  await until(
    name,
    async () => {
      const now = await firing();
      last = [...now].join(', ');
      return now.has(name);
    },
    () => `firing: ${last}; Prometheus is ${prometheus.url}`,
  );
}

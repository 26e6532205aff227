import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { hashApiKey } from '../../mesh/access-policy.ts';
import { collectCleanUps } from '../e2e/fleet-harness.ts';
import { type Mesh, startMesh } from '../e2e/mesh-process.ts';
import { type RealConsul, startRealConsul } from '../real-consul.ts';
import { freePort } from '../real-program.ts';
import { type RealPrometheus, startRealPrometheus } from '../real-prometheus.ts';
import { type RealRedis, startRealRedis } from '../real-redis.ts';
import { untilWithin } from '../until.ts';
import { SCRIPTED } from '../workers/helpers.ts';
import { compress, FOLDER, ruleFiles } from './prometheus-config.ts';
import { startTokenIssuer, type TokenIssuer } from './token-issuer.ts';

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
  /** Where gateway and workers count limits. */
  redis: RealRedis;
  /** Of tokens that the gateway takes. */
  issuer: TokenIssuer;
  /** POSTs a tool call; resolves with the status. */
  call(service: string, tool: string, args?: object, headers?: Record<string, string>): Promise<number>;
  /** A query with the windows of the shipped rules, made for 20 times the speed. */
  query(expression: string): ReturnType<RealPrometheus['query']>;
  /** Alerts that fire, as `name` or `name service`. */
  firing(): Promise<Set<string>>;
  /** Scrapes one gateway more, and workers of all services but the `hidden` one. */
  configure(options: { alsoGateway?: number; hidden?: string }): Promise<void>;
  addCleanUp(cleanUp: () => unknown): void;
  stop(): Promise<void>;
}

const LIMITED_KEY = 'mk_limited';
/** Headers of a caller with limits: 20 requests a minute, 10 calls a day. */
export const LIMITED = { 'x-api-key': LIMITED_KEY };

const SCRAPE_MS = 1000;
const services = (folder: string) => {
  const common = { command: process.execPath, args: [SCRIPTED], load_balancer: 'ROUND_ROBIN' };
  return [
    { ...common, name: 'shop', instances: 2, costs: { 'rpc-error': 2 }, tool_timeouts: { slow: 2000 } },
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
  const issuer = await startTokenIssuer();
  cleanUps.add(() => issuer.close());
  const redis = await startRealRedis();
  cleanUps.add(() => redis.close());
  writeFileSync(policyPath, stringify({ ...POLICY, jwt: [issuer.entry] }));
  const registry = join(folder, 'registry.yaml');
  writeFileSync(registry, stringify({ version: 1, mcp_services: services(folder) }));
  const gatewayPort = await freePort();
  const mesh = await startMesh({
    CONSUL_HTTP_ADDR: consul.url,
    MESH_REGISTRY: registry,
    MESH_ACCESS_POLICY: policyPath,
    MESH_STATE_DIR: folder,
    MESH_AUDIT_LOG: join(folder, 'audit-%p.log'),
    MESH_AUDIT_ARGUMENTS: 'true',
    MESH_REDIS_URL: redis.url,
    MESH_GATEWAY_METRICS_PORT: String(gatewayPort),
  });
  cleanUps.add(() => mesh.stop());
  const rules = ruleFiles().map((path, i) => {
    const compressed = join(folder, `rules-${i}.yml`);
    writeFileSync(compressed, compress(readFileSync(path, 'utf8'), FACTOR));
    return compressed;
  });
  const config = configOf({ consul, rules, gateways: [gatewayPort] });
  const prometheus = await startRealPrometheus(config);
  cleanUps.add(() => prometheus.close());
  return {
    mesh,
    consul,
    prometheus,
    folder,
    policyPath,
    redis,
    issuer,
    table: join(folder, 'discovery.json'),
    call: (service, tool, args = {}, headers = {}) =>
      callTool(`${mesh.url}/api/v1/mcp/${service}/tools/${tool}`, args, headers),
    query: expression => prometheus.query(compress(expression, FACTOR)),
    async firing() {
      const alerts = (await prometheus.alerts()).filter(({ state }) => state === 'firing');
      return new Set(
        alerts.map(({ labels: { alertname, service } }) => [alertname, service].filter(Boolean).join(' ')),
      );
    },
    configure({ alsoGateway, hidden }) {
      const gateways = alsoGateway === undefined ? [gatewayPort] : [gatewayPort, alsoGateway];
      return prometheus.reload(configOf({ consul, rules, gateways, hidden }));
    },
    addCleanUp: cleanUps.add,
    stop: () => cleanUps.run(),
  };
}

interface ConfigParts {
  /** Where workers are found. */
  consul: RealConsul;
  rules: string[];
  gateways: number[];
  hidden?: string | undefined;
}

/** The shipped configuration, with this test's places and times. */
function configOf({ consul, rules, gateways, hidden }: ConfigParts): string {
  const config = parse(readFileSync(join(FOLDER, 'prometheus.yml'), 'utf8'));
  const interval = `${SCRAPE_MS}ms`;
  config.global = { scrape_interval: interval, scrape_timeout: interval, evaluation_interval: interval };
  config.rule_files = rules;
  for (const job of config.scrape_configs) {
    if (job.job_name === 'mcp-gateway')
      job.static_configs = [{ targets: gateways.map(port => `127.0.0.1:${port}`) }];
    if (job.job_name !== 'mcp-workers') continue;
    const [discovery] = job.consul_sd_configs;
    Object.assign(discovery, { server: new URL(consul.url).host, refresh_interval: '1s' });
    if (hidden !== undefined)
      job.relabel_configs.push({ source_labels: ['service'], regex: hidden, action: 'drop' });
  }
  return stringify(config);
}

async function callTool(url: string, args: object, headers: Record<string, string>): Promise<number> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
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

/** An alert may wait for 15 s itself, and a busy machine delays its fault. */
const untilAlert = untilWithin(90_000);

/** Waits for an alert to fire. */
export async function untilFiring({ firing, prometheus }: ObservedMesh, name: string): Promise<void> {
  let last = '';
  await untilAlert(
    name,
    async () => {
      const now = await firing();
      last = [...now].join(', ');
      return now.has(name);
    },
    () => `firing: ${last}; Prometheus is ${prometheus.url}`,
  );
}

import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { startConsul } from '../../../kong/dev/consul.ts';
import type { Gateway } from '../../../kong/dev/gateway.ts';
import { createConsul } from '../../../mesh/consul.ts';
import { deriveServiceKey } from '../../../mesh/keys.ts';
import { loadRegistry, publicDefinition } from '../../../mesh/registry.ts';
import { type After, collectCleanUps } from '../../e2e/fleet-harness.ts';
import { startWorkerProcess, type WorkerProcess } from '../../e2e/worker-process.ts';
import { installPlugin, startPluginGateway } from '../../plugin-gateway.ts';
import { until } from '../../until.ts';

export interface MeshOptions {
  gateways: number;
  /** One worker each: how long a call takes in its server, in ms. */
  paces: readonly number[];
  /** Fields of the registry. */
  service?: Record<string, unknown>;
}

/** Of `GET …/status`, what benchmarks look at. */
export interface Status {
  instances: number;
  healthy: number;
  strategy: string;
  /** `load` is null while the gateway knows nothing of it. */
  details: { id: string; load: { queue_depth?: number } | null }[];
}

export interface BenchMesh {
  gateways: Gateway[];
  workers: WorkerProcess[];
  status(gateway: Gateway): Promise<Status>;
  /** Makes all gateways choose by another strategy; resolves when they do. */
  useStrategy(name: string): Promise<void>;
  /** One call of the tool; resolves with the pid of the server that answered. @throws Error for any other answer */
  work(baseUrl: string): Promise<string>;
  /** POSTs JSON; resolves with the answer's text. @throws Error when it is not 200 */
  post(url: string, body: object): Promise<string>;
  /** The last lines that the workers printed. */
  output(): string;
}

export const SERVICE = 'paced';
const LINES_MAX = 100;

const fromRoot = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const PACED = fromRoot('test/fixtures/servers/paced.mjs');

/** Runs `use` with worker processes, a Consul stand-in, and gateway stand-ins with the real plugin; then ends them. */
export async function withMesh<T>(options: MeshOptions, use: (mesh: BenchMesh) => Promise<T>): Promise<T> {
  const cleanUps = collectCleanUps();
  try {
    return await use(await startMesh(cleanUps.add, options));
  } finally {
    await cleanUps.run();
  }
}

async function startMesh(after: After, { gateways: count, paces, service = {} }: MeshOptions) {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'));
  after(() => rmSync(folder, { recursive: true }));
  const registry = join(folder, 'registry.yaml');
  const entry = { name: SERVICE, command: process.execPath, args: [PACED], env: { PACE_MS: '${PACE_MS}' } };
  writeFileSync(registry, stringify({ version: 1, mcp_services: [{ ...entry, ...service }] }));
  const consul = await startConsul();
  after(consul.close);
  const gateways = await startGateways(after, folder, consul.url, count);
  const lines: string[] = [];
  const print = (line: string) => {
    if (lines.push(line) > LINES_MAX) lines.shift();
  };
  const workers = startWorkers(after, paces, print, {
    CONSUL_HTTP_ADDR: consul.url,
    MESH_REGISTRY: registry,
  });
  await Promise.all(workers.map(worker => worker.listens()));
  const agent = new Agent({ keepAlive: true });
  after(() => agent.destroy());

  const post = (url: string, body: object) => postJson(agent, url, body);
  const mesh: BenchMesh = {
    gateways,
    workers,
    post,
    output: () => lines.join('\n'),
    async status({ url }) {
      const response = await fetch(`${url}/api/v1/mcp/${SERVICE}/status`);
      const body = (await response.json()) as Partial<Status>;
      return { instances: 0, healthy: 0, strategy: '', details: [], ...body };
    },
    async useStrategy(name) {
      const [read] = loadRegistry(registry, { env: { PACE_MS: '0' } }).services;
      if (!read) throw new Error('the registry is empty');
      const client = createConsul({ url: consul.url });
      await client.putDefinition(SERVICE, { ...publicDefinition(read), load_balancer: name });
      client.close();
      await everywhere(mesh, `choice by ${name}`, ({ strategy }) => strategy === name);
    },
    async work(baseUrl) {
      const text = await post(`${baseUrl}/execute`, { command: 'work', params: {} });
      const { content } = JSON.parse(text) as { content: [{ text: string }] };
      return content[0].text;
    },
  };
  await everywhere(mesh, 'health', ({ healthy }) => healthy === paces.length);
  return mesh;
}

/** Waits until each gateway says it. */
export async function everywhere(
  mesh: BenchMesh,
  what: string,
  holds: (status: Status) => boolean,
): Promise<void> {
  let seen: object = {};
  const look = async (gateway: Gateway) => {
    const status = await mesh.status(gateway);
    seen = status;
    return holds(status);
  };
  for (const gateway of mesh.gateways)
    await until(
      what,
      () => look(gateway),
      () => `${JSON.stringify(seen)}\n${mesh.output()}`,
    );
}

async function startGateways(
  after: After,
  folder: string,
  consulUrl: string,
  count: number,
): Promise<Gateway[]> {
  const plugins = await installPlugin(folder);
  const env = {
    PATH: process.env.PATH ?? '',
    CONSUL_HTTP_ADDR: consulUrl,
    MESH_ACCESS_POLICY: 'config/access.yaml',
  };
  const gateways: Gateway[] = [];
  for (let i = 0; i < count; i += 1) {
    const gateway = await startPluginGateway(plugins, env);
    after(gateway.close);
    gateways.push(gateway);
  }
  return gateways;
}

function startWorkers(
  after: After,
  paces: readonly number[],
  print: (line: string) => void,
  env: Record<string, string>,
): WorkerProcess[] {
  const key = deriveServiceKey(randomBytes(32), SERVICE).toString('base64url');
  const common = { ...env, MESH_ADVERTISE_ADDRESS: '127.0.0.1', MESH_SERVICE_KEYS: key };
  return paces.map(paceMs => {
    const worker = startWorkerProcess({
      service: SERVICE,
      register: true,
      env: { ...common, MESH_LOG_LEVEL: 'info', PACE_MS: String(paceMs) },
      print,
    });
    after(() => worker.kill());
    return worker;
  });
}

function postJson(agent: Agent, url: string, body: object): Promise<string> {
  return new Promise((resolve, reject) => {
    const text = JSON.stringify(body);
    const headers = {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'content-length': Buffer.byteLength(text),
    };
    const call = request(url, { method: 'POST', agent, headers }, async response => {
      try {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        const answer = Buffer.concat(chunks).toString();
        if (response.statusCode === 200) resolve(answer);
        else reject(new Error(`${url} answered ${response.statusCode}: ${answer}`));
      } catch (error) {
        reject(error as Error);
      }
    });
    call.once('error', reject);
    call.end(text);
  });
}

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { Gateway } from '../../kong/dev/gateway.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { installPlugin, startPluginGateway, writeOpenPolicy } from '../plugin-gateway.ts';
import { until } from '../until.ts';
import { SCRIPTED } from '../workers/helpers.ts';
import { isAlive } from './mesh-process.ts';
import { startWorkerProcess, type WorkerProcess } from './worker-process.ts';

/** Takes a clean-up; the last one is to run first. */
export type After = (cleanUp: () => unknown) => void;

export interface CleanUps {
  add: After;
  run(): Promise<void>;
}

export interface FleetService {
  name: string;
  workers: number;
  /** Fields of the registry on top of the fixture's command. */
  registry?: Record<string, unknown>;
  /** Variables of the fixture. */
  env?: Record<string, string>;
  /** false: the test itself tells Consul of its workers. */
  register?: boolean;
}

export interface FleetOptions {
  services: readonly FleetService[];
  consulUrl: string;
  /** Where the workers reach Consul, when that is somewhere else; the gateways likewise. */
  workersConsulUrl?: string;
  gatewaysConsulUrl?: string;
  gateways?: number;
  /** Of the access policy. */
  allowedNetworks?: readonly string[];
  /** false: gateways believe what Consul says without a proof of the instance. Default: true. */
  prove?: boolean;
  /** How long gateways keep idle connections to workers; workers drain for a little longer. */
  idleMs?: number;
}

/** Of `GET …/status`, what tests look at. */
export interface Status {
  instances: number;
  healthy: number;
  details: {
    id: string;
    state: string;
    reason?: string;
    load: { in_flight?: number; reported_in_flight?: number; queue_depth?: number } | null;
  }[];
}

export interface FleetHarness {
  gateways: Gateway[];
  /** Base URLs of the gateways. */
  urls: string[];
  workers(service: string): WorkerProcess[];
  /** What a gateway says of a service. */
  status(service: string, gateway?: number): Promise<Status>;
  /** Waits until each gateway sees so many healthy instances, or just these by their ids, and no others. */
  healthy(service: string, wanted: number | readonly string[]): Promise<void>;
  /** The pids of the servers that executed a call, in their order: more than one is a call delivered twice. */
  executions(): Map<string, number[]>;
  /** The last lines that gateways and workers printed. */
  output(): string;
}

const LINES_MAX = 300;
/** By how much a worker waits longer than gateways keep idle connections; 1 s of 15 s at the defaults. */
const DRAIN_MARGIN_MS = 500;

/** Starts workers as processes of their own, and gateways with the real plugin in its server; all are healthy. */
export async function startFleetHarness(after: After, options: FleetOptions): Promise<FleetHarness> {
  const { services, consulUrl, idleMs = 500 } = options;
  const folder = mkdtempSync(join(tmpdir(), 'fleet-'));
  after(() => rmSync(folder, { recursive: true }));
  const marks = join(folder, 'marks');
  writeFileSync(marks, '');
  const registry = writeRegistry(folder, services, marks);
  const lines: string[] = [];
  const print = (line: string) => {
    if (lines.push(line) > LINES_MAX) lines.shift();
  };

  const keys = makeKeys();
  const workers = new Map<string, WorkerProcess[]>();
  const all: WorkerProcess[] = [];
  after(() => endAll(all));
  for (const { name, workers: count, register = true } of services) {
    const env = {
      CONSUL_HTTP_ADDR: options.workersConsulUrl ?? consulUrl,
      MESH_REGISTRY: registry,
      MESH_ADVERTISE_ADDRESS: '127.0.0.1',
      MESH_SERVICE_KEYS: deriveServiceKey(keys.root, name).toString('base64url'),
      MESH_IDENTITY_PUBLIC_KEYS: keys.public,
      MESH_DRAIN_IDLE_MS: String(idleMs + DRAIN_MARGIN_MS),
    };
    const started = Array.from({ length: count }, () =>
      startWorkerProcess({ service: name, register, env, print }),
    );
    all.push(...started);
    workers.set(name, started);
  }
  const gateways = await startGateways(
    { after, folder, count: options.gateways ?? 1, idleMs, print },
    {
      CONSUL_HTTP_ADDR: options.gatewaysConsulUrl ?? consulUrl,
      MESH_ACCESS_POLICY: writeOpenPolicy(folder, options.allowedNetworks),
      ...(options.prove === false ? {} : { MESH_ROOT_KEYS: keys.root.toString('base64url') }),
      MESH_IDENTITY_PRIVATE_KEY: keys.private,
    },
  );
  await Promise.all(all.map(worker => worker.listens()));

  const harness = describe(gateways, workers, { marks, lines });
  for (const { name, workers: count, register = true } of services) {
    if (register) await harness.healthy(name, count);
  }
  return harness;
}

/**
 * Clean-ups in the reverse of their order: node:test runs its own in theirs, which would end what others still need.
 * One that fails does not keep the rest from running.
 */
export function collectCleanUps(): CleanUps {
  const cleanUps: (() => unknown)[] = [];
  return {
    add: cleanUp => cleanUps.unshift(cleanUp),
    async run() {
      const errors: unknown[] = [];
      for (const cleanUp of cleanUps.splice(0)) {
        try {
          await cleanUp();
        } catch (error) {
          errors.push(error);
        }
      }
      if (errors.length > 0) throw new AggregateError(errors, 'not everything was cleaned up');
    },
  };
}

/** Rolling restart: each worker in turn is told to stop, ends by itself, comes back at its port and is healthy. */
export async function restartInTurn(harness: FleetHarness, service: string): Promise<void> {
  const workers = harness.workers(service);
  for (const worker of workers) {
    worker.signal('SIGTERM');
    const how = await worker.ended();
    if (how !== 0) throw new Error(`${worker.instance} did not stop cleanly: ${how}\n${harness.output()}`);
    await worker.restart();
    await harness.healthy(service, workers.length);
  }
}

function describe(
  gateways: Gateway[],
  workers: Map<string, WorkerProcess[]>,
  { marks, lines }: { marks: string; lines: string[] },
): FleetHarness {
  const urls = gateways.map(({ url }) => url);
  const status = async (service: string, gateway = 0): Promise<Status> => {
    const response = await fetch(`${urls[gateway]}/api/v1/mcp/${service}/status`);
    const body = (await response.json()) as Partial<Status>;
    return { instances: 0, healthy: 0, details: [], ...body };
  };
  return {
    gateways,
    urls,
    workers: name => workers.get(name) ?? [],
    status,
    async healthy(service, wanted) {
      const count = typeof wanted === 'number' ? wanted : wanted.length;
      const isMeant = (id: string) => typeof wanted === 'number' || wanted.includes(id);
      let seen: Status[] = [];
      const look = async () => {
        seen = await Promise.all(urls.map((_, gateway) => status(service, gateway)));
        return seen.every(
          ({ healthy, instances, details }) =>
            healthy === count && instances === count && details.every(({ id }) => isMeant(id)),
        );
      };
      await until(`${count} healthy instances of ${service}`, look, () =>
        [JSON.stringify(seen), ...lines].join('\n'),
      );
    },
    executions() {
      const executions = new Map<string, number[]>();
      for (const line of readFileSync(marks, 'utf8').split('\n')) {
        const [id = '', pid] = line.split(' ');
        if (id !== '') executions.set(id, [...(executions.get(id) ?? []), Number(pid)]);
      }
      return executions;
    },
    output: () => lines.join('\n'),
  };
}

interface GatewayPlan {
  after: After;
  folder: string;
  count: number;
  idleMs: number;
  print(line: string): void;
}

async function startGateways(plan: GatewayPlan, env: Record<string, string>): Promise<Gateway[]> {
  const { after, folder, count, idleMs, print } = plan;
  const plugins = await installPlugin(folder);
  const gateways = Array.from({ length: count }, async () => {
    const gateway = await startPluginGateway(plugins, env, {
      upstreamIdleMs: idleMs,
      log: (level, message) => print(`[gateway] ${level} ${message}`),
    });
    after(() => gateway.close());
    return gateway;
  });
  return Promise.all(gateways);
}

function makeKeys(): { root: Buffer; private: string; public: string } {
  const { d, x } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  return { root: randomBytes(32), private: String(d), public: String(x) };
}

function writeRegistry(folder: string, services: readonly FleetService[], marks: string): string {
  const mcp_services = services.map(({ name, registry, env }) => ({
    name,
    command: process.execPath,
    args: [SCRIPTED],
    env: { MARKS: marks, ...env },
    ...registry,
  }));
  const path = join(folder, 'registry.yaml');
  writeFileSync(path, stringify({ version: 1, mcp_services }));
  return path;
}

/** At once, drained or not; their servers end with them. */
async function endAll(workers: WorkerProcess[]): Promise<void> {
  const servers = workers.flatMap(worker => worker.serverPids());
  await Promise.all(workers.map(worker => worker.kill()));
  await until('end of the servers', () => servers.every(pid => !isAlive(pid)));
}

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type FoundProgram,
  findProgram,
  onFreePorts,
  type RealProgram,
  startProgram,
} from './real-program.ts';

/** So that elections and vanished nodes take seconds, and a busy machine is not taken for a dead one. */
const QUICK = [
  'performance { raft_multiplier = 1 }',
  'gossip_lan { probe_interval = "500ms" probe_timeout = "300ms" suspicion_mult = 3 }',
];

export interface RealConsul {
  url: string;
  readonly pid: number;
  /** As `/v1/status/leader` names it. */
  rpc: string;
  /** kill -9. */
  kill(): Promise<void>;
  /** Starts it again on its ports after `kill`: with its data if it is `persistent` and they are not to be `lost`. */
  restart(options?: { lost?: boolean }): Promise<void>;
  close(): Promise<void>;
}

type Found<T> = (T & { reason?: undefined }) | ({ [K in keyof T]?: undefined } & { reason: string });

/** The path of a Consul binary, or why there is none: MESH_CONSUL_BIN, PATH, then .mesh/bin (.ci/install-debian). */
export function findConsul(): FoundProgram {
  return findProgram('consul', { variable: 'MESH_CONSUL_BIN' });
}

/**
 * Starts `consul agent -dev` on free ports of 127.0.0.1 (HTTP on `port` when given), or a server that keeps its data on
 * disk (`persistent`), and waits until it has a leader and itself in its catalogue. With a `managementToken` it has ACLs
 * as config/consul/acl.hcl says. Without a binary: no consul, but the reason. Throws, with what Consul printed, when it does not start within 20 s.
 */
export async function startRealConsul({
  port = 0,
  persistent = false,
  managementToken = '',
} = {}): Promise<Found<{ consul: RealConsul }>> {
  const found = findConsul();
  if (found.binary === undefined) return { reason: found.reason };
  const role = persistent ? ['-server', '-bootstrap-expect=1'] : ['-dev'];
  if (managementToken !== '') role.push(...accessControl(found.binary, managementToken));
  const [consul] = await startAgents(found.binary, ([ports]) => [
    { role, ports: { ...ports, ...(port && { http: port }) }, token: managementToken },
  ]);
  return { consul: consul as RealConsul };
}

/** Starts three servers, and an agent that is none, as `startRealConsul` does; ready when they have a leader. */
export async function startConsulCluster(): Promise<Found<{ servers: RealConsul[]; agent: RealConsul }>> {
  const found = findConsul();
  if (found.binary === undefined) return { reason: found.reason };
  const server = ['-server', '-bootstrap-expect=3'];
  const [agent, ...servers] = await startAgents(
    found.binary,
    ([client, ...others]) => {
      const join = others.map(({ serf }) => `-retry-join=127.0.0.1:${serf}`);
      const role = [...join, '-retry-interval=1s'];
      return [{ role, ports: client }, ...others.map(ports => ({ role: [...server, ...role], ports }))];
    },
    4,
  );
  return { servers, agent: agent as RealConsul };
}

interface Ports {
  http: number;
  serf: number;
  wan: number;
  rpc: number;
}

interface AgentOptions {
  role: string[];
  ports: Ports;
  /** That the agent is asked with. */
  token?: string;
}

async function startAgents(
  binary: string,
  describe: (ports: [Ports, ...Ports[]]) => AgentOptions[],
  count = 1,
): Promise<RealConsul[]> {
  return onFreePorts(4 * count, async free => {
    const ports = Array.from({ length: count }, (_, i) => {
      const [http, serf, wan, rpc] = free.slice(4 * i) as [number, number, number, number];
      return { http, serf, wan, rpc };
    });
    const agents = describe(ports as [Ports, ...Ports[]]).map(options => new Agent(binary, options));
    const starts = await Promise.allSettled(agents.map(agent => agent.restart()));
    const failed = starts.find(start => start.status === 'rejected');
    if (!failed) return agents;
    await Promise.all(agents.map(agent => agent.close()));
    throw failed.reason;
  });
}

class Agent implements RealConsul {
  readonly url: string;
  readonly rpc: string;
  readonly #binary: string;
  readonly #arguments: string[];
  readonly #data: string | undefined;
  readonly #token: string;
  #program: RealProgram | undefined;

  constructor(binary: string, { role, ports, token = '' }: AgentOptions) {
    this.#token = token;
    const { http, serf, wan, rpc } = ports;
    this.#binary = binary;
    this.url = `http://127.0.0.1:${http}`;
    this.rpc = `127.0.0.1:${rpc}`;
    const numbers = `-http-port=${http} -serf-lan-port=${serf} -serf-wan-port=${wan} -server-port=${rpc}`;
    const off = `-dns-port=-1 -grpc-port=-1 ${hasGrpcTls(binary) ? '-grpc-tls-port=-1' : ''}`.trim();
    const base =
      `agent -bind=127.0.0.1 -client=127.0.0.1 -log-level=err -node=node-${rpc} ${numbers} ${off}`.split(' ');
    this.#arguments = [...base, ...role, '-hcl=disable_update_check = true'];
    if (role.includes('-dev')) return;
    this.#data = mkdtempSync(join(tmpdir(), 'mesh-consul-'));
    this.#arguments.push(`-data-dir=${this.#data}`, ...QUICK.map(text => `-hcl=${text}`));
  }

  get pid(): number {
    return this.#program?.pid as number;
  }

  async restart({ lost = false } = {}): Promise<void> {
    if (lost) this.#removeData();
    this.#program = await startProgram(this.#binary, this.#arguments, {
      isReady: () => isReady(this.url, this.#token),
      cleanUp: () => this.#removeData(),
    });
  }

  async kill(): Promise<void> {
    await this.#program?.kill();
  }

  /** As hard: there is nothing to save, and leaving the cluster takes it seconds. */
  async close(): Promise<void> {
    await this.kill();
    this.#removeData();
  }

  #removeData(): void {
    if (this.#data !== undefined) rmSync(this.#data, { recursive: true, force: true });
  }
}

/** It has a leader, and itself in its catalogue. */
async function isReady(url: string, token: string): Promise<boolean> {
  const [leader, nodes] = await Promise.all([
    read(`${url}/v1/status/leader`, token),
    read(`${url}/v1/catalog/nodes`, token),
  ]);
  return typeof leader === 'string' && leader !== '' && Array.isArray(nodes) && nodes.length > 0;
}

async function read(url: string, token: string): Promise<unknown> {
  try {
    const headers = { 'x-consul-token': token };
    return await (await fetch(url, { headers, signal: AbortSignal.timeout(2000) })).json();
  } catch {
    return undefined;
  }
}

/** The port and its option came with 1.14; older ones refuse an option that they do not know. */
function hasGrpcTls(binary: string): boolean {
  return isAtLeast(binary, 14);
}

/** The first token's name is the present one since 1.11. */
function accessControl(binary: string, token: string): string[] {
  const first = isAtLeast(binary, 11) ? 'initial_management' : 'master';
  const file = join(import.meta.dirname, '../config/consul/acl.hcl');
  return [`-config-file=${file}`, `-hcl=acl { tokens { ${first} = "${token}" agent = "${token}" } }`];
}

/** Whether it is 1.<minor> or newer. */
function isAtLeast(binary: string, wanted: number): boolean {
  const [, major, minor] =
    /v(\d+)\.(\d+)/.exec(spawnSync(binary, ['version']).stdout?.toString() ?? '') ?? [];
  return Number(major) > 1 || Number(minor) >= wanted;
}

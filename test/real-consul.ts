import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const START_MS = 20_000;
/** Another process may take a free port before Consul does. */
const ATTEMPTS = 3;
const IN_USE = /address already in use/;
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
export function findConsul(): { binary: string } | { binary: undefined; reason: string } {
  const named = process.env.MESH_CONSUL_BIN;
  const folders = (process.env.PATH ?? '').split(delimiter).filter(folder => folder !== '');
  const installed = join(import.meta.dirname, '..', '.mesh', 'bin', 'consul');
  const candidates = named ? [named] : [...folders.map(folder => join(folder, 'consul')), installed];
  const binary = candidates.find(isExecutable);
  if (binary !== undefined) return { binary };
  if (named) return { binary, reason: `MESH_CONSUL_BIN=${named} is no executable file` };
  return {
    binary,
    reason: 'no Consul on PATH or in .mesh/bin; run .ci/install-debian or set MESH_CONSUL_BIN',
  };
}

/**
 * Starts `consul agent -dev` on free ports of 127.0.0.1 (HTTP on `port` when given), or a server that keeps its data on
 * disk (`persistent`), and waits until it has a leader and itself in its catalogue. Without a binary: no consul, but
 * the reason. Throws, with what Consul printed, when it does not start within 20 s.
 */
export async function startRealConsul({
  port = 0,
  persistent = false,
} = {}): Promise<Found<{ consul: RealConsul }>> {
  const found = findConsul();
  if (found.binary === undefined) return { reason: found.reason };
  const role = persistent ? ['-server', '-bootstrap-expect=1'] : ['-dev'];
  const [consul] = await startAgents(found.binary, ([ports]) => [
    { role, ports: { ...ports, ...(port && { http: port }) } },
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
}

async function startAgents(
  binary: string,
  describe: (ports: [Ports, ...Ports[]]) => AgentOptions[],
  count = 1,
): Promise<RealConsul[]> {
  for (let attempt = 1; ; attempt++) {
    const free = await freePorts(4 * count);
    const ports = Array.from({ length: count }, (_, i) => {
      const [http, serf, wan, rpc] = free.slice(4 * i) as [number, number, number, number];
      return { http, serf, wan, rpc };
    });
    const agents = describe(ports as [Ports, ...Ports[]]).map(options => new Agent(binary, options));
    const starts = await Promise.allSettled(agents.map(agent => agent.restart()));
    const failed = starts.find(start => start.status === 'rejected');
    if (!failed) return agents;
    await Promise.all(agents.map(agent => agent.close()));
    if (attempt === ATTEMPTS || !IN_USE.test(String(failed.reason))) throw failed.reason;
  }
}

class Agent implements RealConsul {
  readonly url: string;
  readonly rpc: string;
  readonly #binary: string;
  readonly #arguments: string[];
  readonly #data: string | undefined;
  #child: ChildProcess | undefined;

  constructor(binary: string, { role, ports }: AgentOptions) {
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
    return this.#child?.pid as number;
  }

  async restart({ lost = false } = {}): Promise<void> {
    if (lost) this.#removeData();
    const child = spawn(this.#binary, this.#arguments, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    process.once('exit', this.#onExit);
    let printed = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', chunk => (printed = (printed + chunk).slice(-4000)));
    try {
      await once(child, 'spawn');
      await untilReady(this.url, child);
    } catch (error) {
      await this.kill();
      throw new Error(`${this.#binary} does not start: ${(error as Error).message}\n${printed}`);
    }
  }

  async kill(): Promise<void> {
    process.off('exit', this.#onExit);
    const child = this.#child;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  /** As hard: there is nothing to save, and leaving the cluster takes it seconds. */
  async close(): Promise<void> {
    await this.kill();
    this.#removeData();
  }

  readonly #onExit = () => {
    this.#child?.kill('SIGKILL');
    this.#removeData();
  };

  #removeData(): void {
    if (this.#data !== undefined) rmSync(this.#data, { recursive: true, force: true });
  }
}

async function untilReady(url: string, child: ChildProcess): Promise<void> {
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('it exited');
    const [leader, nodes] = await Promise.all([
      read(`${url}/v1/status/leader`),
      read(`${url}/v1/catalog/nodes`),
    ]);
    if (typeof leader === 'string' && leader !== '' && Array.isArray(nodes) && nodes.length > 0) return;
    await pause(100);
  }
  throw new Error(`no leader after ${START_MS / 1000} s`);
}

async function read(url: string): Promise<unknown> {
  try {
    return await (await fetch(url, { signal: AbortSignal.timeout(2000) })).json();
  } catch {
    return undefined;
  }
}

/** All open at once, so that they differ. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map(server => (server.address() as { port: number }).port);
  await Promise.all(servers.map(server => once(server.close(), 'close')));
  return ports;
}

/** The port and its option came with 1.14; older ones refuse an option that they do not know. */
function hasGrpcTls(binary: string): boolean {
  const [, major, minor] =
    /v(\d+)\.(\d+)/.exec(spawnSync(binary, ['version']).stdout?.toString() ?? '') ?? [];
  return Number(major) > 1 || Number(minor) >= 14;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const START_MS = 20_000;
/** Another process may take a free port before Consul does. */
const ATTEMPTS = 3;

export interface RealConsul {
  url: string;
  pid: number;
  close(): Promise<void>;
}

/** The path of a Consul binary, or why there is none: MESH_CONSUL_BIN, PATH, then .mesh/bin (.ci/install-consul). */
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
    reason: 'no Consul on PATH or in .mesh/bin; run .ci/install-consul or set MESH_CONSUL_BIN',
  };
}

/**
 * Starts `consul agent -dev` on free ports of 127.0.0.1 (HTTP on `port` when given) and waits until it has a
 * leader and itself in its catalogue. Without a binary: no consul, but the reason. Throws, with what Consul
 * printed, when it does not start within 20 s.
 */
export async function startRealConsul({
  port = 0,
} = {}): Promise<{ consul: RealConsul; reason?: undefined } | { consul: undefined; reason: string }> {
  const found = findConsul();
  if (found.binary === undefined) return { consul: undefined, reason: found.reason };
  for (let attempt = 1; ; attempt++) {
    try {
      return { consul: await start(found.binary, port) };
    } catch (error) {
      if (attempt === ATTEMPTS || !/address already in use/.test((error as Error).message)) throw error;
    }
  }
}

async function start(binary: string, port: number): Promise<RealConsul> {
  const [http = 0, lan, wan, rpc] = await freePorts(4);
  const url = `http://127.0.0.1:${port || http}`;
  const ports = `-http-port=${port || http} -serf-lan-port=${lan} -serf-wan-port=${wan} -server-port=${rpc}`;
  const off = `-dns-port=-1 -grpc-port=-1 ${hasGrpcTls(binary) ? '-grpc-tls-port=-1' : ''}`.trim();
  const args = `agent -dev -bind=127.0.0.1 -client=127.0.0.1 -log-level=err ${ports} ${off}`.split(' ');
  const child = spawn(binary, [...args, '-hcl=disable_update_check = true'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const killOnExit = () => child.kill('SIGKILL');
  process.once('exit', killOnExit);
  let printed = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', chunk => (printed = (printed + chunk).slice(-4000)));

  const close = async () => {
    process.off('exit', killOnExit);
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    // Nothing on disk to save, and leaving the cluster takes it seconds.
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  try {
    await once(child, 'spawn');
    await untilReady(url, child);
  } catch (error) {
    await close();
    throw new Error(`${binary} does not start: ${(error as Error).message}\n${printed}`);
  }
  return { url, pid: child.pid as number, close };
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

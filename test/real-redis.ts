import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const START_MS = 20_000;
/** Another process may take a free port before Redis does. */
const ATTEMPTS = 3;

export interface RealRedis {
  url: string;
  port: number;
  pid: number;
  close(): Promise<void>;
}

/** The path of a redis-server binary, or why there is none: MESH_REDIS_BIN, PATH, then .mesh/bin (.ci/install-debian). */
export function findRedis(): { binary: string } | { binary: undefined; reason: string } {
  const named = process.env.MESH_REDIS_BIN;
  const folders = (process.env.PATH ?? '').split(delimiter).filter(folder => folder !== '');
  const installed = join(import.meta.dirname, '..', '.mesh', 'bin', 'redis-server');
  const candidates = named ? [named] : [...folders.map(folder => join(folder, 'redis-server')), installed];
  const binary = candidates.find(isExecutable);
  if (binary !== undefined) return { binary };
  if (named) return { binary, reason: `MESH_REDIS_BIN=${named} is no executable file` };
  return {
    binary,
    reason: 'no redis-server on PATH or in .mesh/bin; run .ci/install-debian or set MESH_REDIS_BIN',
  };
}

/**
 * For the `skip` of a test that wants a real Redis: false when there is one, else the reason. Where CI is set, a
 * missing Redis is a failure of the test and no skip.
 */
export function skipWithoutRedis(): string | false {
  const found = findRedis();
  return found.binary === undefined && !process.env.CI ? found.reason : false;
}

/**
 * Starts a redis-server without persistence on a free port of 127.0.0.1 (on `port` when given) and waits until it
 * answers. Throws, with what it printed, when it does not within 20 s, or when there is no binary.
 */
export async function startRealRedis({ port = 0 } = {}): Promise<RealRedis> {
  const found = findRedis();
  if (found.binary === undefined) throw new Error(found.reason);
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(found.binary, port || (await freePort()));
    } catch (error) {
      if (attempt === ATTEMPTS || !/in use/.test((error as Error).message)) throw error;
    }
  }
}

async function start(binary: string, port: number): Promise<RealRedis> {
  const options = `--port ${port} --bind 127.0.0.1 --save --appendonly no --daemonize no`.split(' ');
  options.splice(options.indexOf('--save') + 1, 0, '');
  const child = spawn(binary, options, { stdio: ['ignore', 'pipe', 'pipe'] });
  const killOnExit = () => child.kill('SIGKILL');
  process.once('exit', killOnExit);
  let printed = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', chunk => (printed = (printed + chunk).slice(-4000)));

  const close = async () => {
    process.off('exit', killOnExit);
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    // Also ends one that a test has stopped (SIGSTOP).
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  try {
    await once(child, 'spawn');
    await untilReady(port, child);
  } catch (error) {
    await close();
    throw new Error(`${binary} does not start: ${(error as Error).message}\n${printed}`);
  }
  return { url: `redis://127.0.0.1:${port}`, port, pid: child.pid as number, close };
}

async function untilReady(port: number, child: ChildProcess): Promise<void> {
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('it exited');
    if (await answers(port)) return;
    await pause(20);
  }
  throw new Error(`no answer after ${START_MS / 1000} s`);
}

async function answers(port: number): Promise<boolean> {
  const socket = createConnection({ host: '127.0.0.1', port });
  try {
    socket.end('PING\r\n');
    const [reply] = await once(socket, 'data', { signal: AbortSignal.timeout(2000) });
    return String(reply).startsWith('+PONG');
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await once(server.close(), 'close');
  return port;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

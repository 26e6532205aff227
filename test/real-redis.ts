import { once } from 'node:events';
import { createConnection } from 'node:net';
import { type FoundProgram, findProgram, onFreePorts, skipWithout, startProgram } from './real-program.ts';

export interface RealRedis {
  url: string;
  port: number;
  pid: number;
  close(): Promise<void>;
}

/** The path of a redis-server binary, or why there is none: MESH_REDIS_BIN, PATH, then .mesh/bin (.ci/install-debian). */
export function findRedis(): FoundProgram {
  return findProgram('redis-server', { variable: 'MESH_REDIS_BIN' });
}

/** For the `skip` of a test that wants a real Redis. */
export function skipWithoutRedis(): string | false {
  return skipWithout(findRedis());
}

/**
 * Starts a redis-server without persistence on a free port of 127.0.0.1 (on `port` when given) and waits until it
 * answers. Throws, with what it printed, when it does not within 20 s, or when there is no binary.
 */
export async function startRealRedis({ port = 0 } = {}): Promise<RealRedis> {
  const found = findRedis();
  if (found.binary === undefined) throw new Error(found.reason);
  const { binary } = found;
  return onFreePorts(1, ([free = 0]) => start(binary, port || free));
}

async function start(binary: string, port: number): Promise<RealRedis> {
  const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', ''];
  const { pid, kill } = await startProgram(binary, [...options, '--appendonly', 'no', '--daemonize', 'no'], {
    isReady: () => answers(port),
  });
  return { url: `redis://127.0.0.1:${port}`, port, pid, close: kill };
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

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { asMesh, givenMesh } from './given-mesh.ts';

export interface Mesh {
  /** Base URL of the gateway. */
  url: string;
  pid: number;
  /** Everything it printed so far. */
  output(): string;
  /** Ctrl-C; resolves with the exit code. */
  stop(): Promise<number | null>;
}

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const START = fileURLToPath(new URL('../../cli/start.ts', import.meta.url));
const START_DEADLINE_MS = 60_000;

/**
 * Starts what `npm start` starts, on a free port, and waits for its `ready`. Where KONG_URL is set, and no settings are
 * asked for that the mesh there need not have, it is that one.
 */
export async function startMesh(env: Record<string, string> = {}): Promise<Mesh> {
  const given = givenMesh();
  if (given && Object.keys(env).length === 0) return asMesh(given);
  const { child, output } = spawnStart(env);
  const deadline = Date.now() + START_DEADLINE_MS;
  while (!/^ready$/m.test(output())) {
    if (child.exitCode !== null) throw new Error(`the mesh ended with ${child.exitCode}:\n${output()}`);
    if (Date.now() > deadline) {
      child.kill('SIGINT');
      await once(child, 'exit');
      throw new Error(`the mesh did not become ready:\n${output()}`);
    }
    await pause(50);
  }
  const url = /^Gateway (\S+)/m.exec(output())?.[1] ?? '';
  return {
    url,
    pid: child.pid ?? 0,
    output,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
      child.kill('SIGINT');
      await once(child, 'exit');
      return child.exitCode;
    },
  };
}

/** Runs `npm start`'s program to its end, for configurations that it must refuse. */
export async function runStart(
  env: Record<string, string>,
): Promise<{ code: number | null; output: string }> {
  const { child, output } = spawnStart(env);
  await once(child, 'close');
  return { code: child.exitCode, output: output() };
}

/** Processes below a pid, however deep, with their command lines (Linux /proc). */
export function descendants(root: number): { pid: number; command: string }[] {
  const processes = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .flatMap(name => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
        return [
          {
            pid: Number(name),
            parent,
            command: readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' '),
          },
        ];
      } catch {
        return []; // It ended between the two reads.
      }
    });
  const below = (parent: number): typeof processes =>
    processes
      .filter(process => process.parent === parent)
      .flatMap(process => [process, ...below(process.pid)]);
  return below(root).map(({ pid, command }) => ({ pid, command }));
}

export function isAlive(pid: number): boolean {
  try {
    // A zombie still takes signals; its state tells.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

function spawnStart(env: Record<string, string>): { child: ChildProcess; output: () => string } {
  const child = spawn(process.execPath, [START], {
    cwd: ROOT,
    env: { ...withoutMesh(process.env), MESH_PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', chunk => (text += chunk));
  return { child, output: () => text };
}

/** A developer's own settings must not change what is tested. */
export function withoutMesh(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !/^(MESH_|CONSUL_|NODE_TEST)/.test(name)));
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { MCP_PATH } from '../../mesh/names.ts';
import { startMesh, withoutMesh } from '../e2e/mesh-process.ts';

export const CHILDREN = ['legacy', 'modern'] as const;

/** Which fixture is hosted: one that knows only 2025-11-25, or one that speaks 2026-07-28 as well. */
export type ChildName = (typeof CHILDREN)[number];

export const ISOLATIONS = ['shared', 'session', 'principal'] as const;

export type Isolation = (typeof ISOLATIONS)[number];

/** A fixture as a service: each pair is one of its own, so that a mesh can have them all. */
export interface Hosted {
  child: ChildName;
  isolation: Isolation;
}

/** Endpoints of the mesh or of one worker, and the way to end what serves them. */
export interface Endpoint {
  /** The MCP endpoint of a fixture. */
  url(hosted: Hosted): string;
  /** What it logged so far. */
  output(): string;
  stop(): Promise<void>;
}

const WORKER = fileURLToPath(new URL('../../workers/main.ts', import.meta.url));
/** Servers started ahead: some scenarios give an answer 600 ms, in which a busy machine starts none. */
const SPARES = 8;
const START_DEADLINE_MS = 20_000;
const STOP_DEADLINE_MS = 10_000;

/** Starts a worker of one fixture as a user does, without Consul. */
export async function startWorkerProcess(hosted: Hosted): Promise<Endpoint> {
  const registry = await writeRegistry([hosted]);
  const worker = spawn(process.execPath, [WORKER, nameOf(hosted), '--port', '0', '--no-register'], {
    env: { ...withoutMesh(process.env), MESH_REGISTRY: registry.path, MESH_DRAIN_IDLE_MS: '0' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let output = '';
  const stop = async () => {
    await stopProcess(worker);
    await registry.remove();
  };
  try {
    const port = await listeningPort(worker, line => (output += `${line}\n`));
    return { url: () => `http://127.0.0.1:${port}/mcp`, output: () => output, stop };
  } catch (error) {
    await stop();
    throw new Error(`${(error as Error).message}:\n${output}`);
  }
}

/** Starts the whole mesh with these fixtures. */
export async function startGateway(services: Hosted[]): Promise<Endpoint> {
  const registry = await writeRegistry(services);
  try {
    const mesh = await startMesh({ MESH_REGISTRY: registry.path });
    return {
      url: hosted => `${mesh.url}${MCP_PATH}/${nameOf(hosted)}`,
      output: mesh.output,
      async stop() {
        await mesh.stop();
        await registry.remove();
      },
    };
  } catch (error) {
    await registry.remove();
    throw error;
  }
}

function nameOf({ child, isolation }: Hosted): string {
  return `${child}-${isolation}`;
}

async function writeRegistry(services: Hosted[]) {
  const folder = await mkdtemp(join(tmpdir(), 'conformance-registry-'));
  const path = join(folder, 'registry.yaml');
  const mcp_services = services.map(hosted => ({
    name: nameOf(hosted),
    isolation: hosted.isolation,
    ...(hosted.isolation === 'session' ? { pool: { spares: SPARES } } : {}),
    command: process.execPath,
    args: [fileURLToPath(new URL(`../fixtures/conformance/${hosted.child}.ts`, import.meta.url))],
  }));
  await writeFile(path, stringify({ version: 1, mcp_services }));
  return { path, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** The port from the worker's log, once its server is ready. */
async function listeningPort(worker: ChildProcess, onLine: (line: string) => void): Promise<number> {
  let port: number | undefined;
  let ready = false;
  if (!worker.stderr) throw new Error('the worker has no standard error');
  const lines = createInterface({ input: worker.stderr });
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(
      () => reject(new Error('the worker did not become ready')),
      START_DEADLINE_MS,
    );
    const settle = (action: () => void) => {
      clearTimeout(deadline);
      action();
    };
    worker.once('exit', code => settle(() => reject(new Error(`the worker ended with ${code}`))));
    lines.on('line', line => {
      onLine(line);
      const entry = readJson(line);
      if (entry.msg === 'worker listens') port = entry.port;
      if (entry.msg === 'server is ready') ready = true;
      const found = port;
      if (found !== undefined && ready) settle(() => resolve(found));
    });
  });
}

async function stopProcess(worker: ChildProcess): Promise<void> {
  if (worker.exitCode !== null || worker.signalCode !== null) return;
  const exited = once(worker, 'exit');
  worker.kill('SIGTERM');
  const force = setTimeout(() => worker.kill('SIGKILL'), STOP_DEADLINE_MS);
  await exited;
  clearTimeout(force);
}

function readJson(line: string): { msg?: string; port?: number } {
  try {
    return JSON.parse(line) as { msg?: string; port?: number };
  } catch {
    return {}; // What the fixture prints on its own standard error.
  }
}

/** A developer's own settings must not change what is tested. */

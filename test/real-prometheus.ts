import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

/** One sample of an instant query. */
export interface Sample {
  metric: Record<string, string>;
  value: number;
}

/** Of `/api/v1/alerts`. */
export interface Alert {
  labels: Record<string, string>;
  annotations: Record<string, string>;
  state: 'pending' | 'firing';
}

export interface RealPrometheus {
  url: string;
  pid: number;
  /** A query in PromQL, now. @throws Error with Prometheus' own words when it refuses it */
  query(expression: string): Promise<Sample[]>;
  alerts(): Promise<Alert[]>;
  /** Puts another configuration in force. @throws Error when Prometheus refuses it */
  reload(config: string): Promise<void>;
  close(): Promise<void>;
}

const START_MS = 20_000;
/** Another process may take a free port before Prometheus does. */
const ATTEMPTS = 3;

/** The path of a program of Prometheus', or why there is none: MESH_PROMETHEUS_DIR, PATH, then .mesh/bin (.ci/install-debian). */
export function findPrometheus(
  program: 'prometheus' | 'promtool' = 'prometheus',
): { binary: string } | { binary: undefined; reason: string } {
  const named = process.env.MESH_PROMETHEUS_DIR;
  const folders = (process.env.PATH ?? '').split(delimiter).filter(folder => folder !== '');
  const installed = join(import.meta.dirname, '..', '.mesh', 'bin');
  const binary = (named ? [named] : [...folders, installed])
    .map(folder => join(folder, program))
    .find(isExecutable);
  if (binary !== undefined) return { binary };
  if (named) return { binary, reason: `MESH_PROMETHEUS_DIR=${named} has no program ${program}` };
  return {
    binary,
    reason: `no ${program} on PATH or in .mesh/bin; run .ci/install-debian prometheus or set MESH_PROMETHEUS_DIR`,
  };
}

/** For the `skip` of a test: false when there is one, else the reason. Where CI is set, a missing one is a failure. */
export function skipWithoutPrometheus(): string | false {
  const missing = (['prometheus', 'promtool'] as const).map(findPrometheus).find(found => !found.binary);
  return missing && 'reason' in missing && !process.env.CI ? missing.reason : false;
}

/** Runs promtool; resolves with whether it was content, and all that it printed. */
export async function promtool(...args: string[]): Promise<{ ok: boolean; output: string }> {
  const found = findPrometheus('promtool');
  if (found.binary === undefined) throw new Error(found.reason);
  return new Promise(resolve => {
    execFile(found.binary, args, (error, stdout, stderr) =>
      resolve({ ok: error === null, output: stdout + stderr }),
    );
  });
}

/** Whether this Prometheus was built with discovery by Consul: Debian 12's was not. */
export async function knowsConsul(): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'));
  const path = join(folder, 'config.yml');
  const config = 'scrape_configs: [{ job_name: a, consul_sd_configs: [{ server: "127.0.0.1:1" }] }]\n';
  writeFileSync(path, config);
  const { ok } = await promtool('check', 'config', path);
  rmSync(folder, { recursive: true });
  return ok;
}

/**
 * Starts a Prometheus with an empty database on a free port of 127.0.0.1 and waits until it is ready. Throws, with what
 * it printed, when it is not within 20 s, or when there is no binary.
 */
export async function startRealPrometheus(config: string): Promise<RealPrometheus> {
  const found = findPrometheus();
  if (found.binary === undefined) throw new Error(found.reason);
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(found.binary, config, await freePort());
    } catch (error) {
      if (attempt === ATTEMPTS || !/in use/.test((error as Error).message)) throw error;
    }
  }
}

/** A port of 127.0.0.1 that nobody has just now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await once(server.close(), 'close');
  return port;
}

async function start(binary: string, config: string, port: number): Promise<RealPrometheus> {
  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'));
  const path = join(folder, 'prometheus.yml');
  writeFileSync(path, config);
  const url = `http://127.0.0.1:${port}`;
  const options = [`--config.file=${path}`, `--storage.tsdb.path=${join(folder, 'data')}`];
  const child = spawn(
    binary,
    [...options, `--web.listen-address=127.0.0.1:${port}`, '--web.enable-lifecycle'],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let printed = '';
  child.stderr.on('data', chunk => (printed = (printed + chunk).slice(-4000)));
  const onExit = () => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', onExit);
  const close = async () => {
    process.off('exit', onExit);
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await once(child, 'spawn');
    await untilReady(url, child);
  } catch (error) {
    await close();
    throw new Error(`${binary} does not start: ${(error as Error).message}\n${printed}`);
  }
  return {
    url,
    pid: child.pid as number,
    query: expression => query(url, expression),
    alerts: async () => (await get<{ alerts: Alert[] }>(`${url}/api/v1/alerts`)).alerts,
    async reload(text) {
      writeFileSync(path, text);
      const response = await fetch(`${url}/-/reload`, { method: 'POST' });
      const body = await response.text();
      if (!response.ok) throw new Error(`${body}\n${printed}\n${readFileSync(path, 'utf8')}`);
    },
    close,
  };
}

async function untilReady(url: string, child: ChildProcess): Promise<void> {
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('it exited');
    const ready = await fetch(`${url}/-/ready`).then(
      async response => (await response.text()) !== '' && response.ok,
      () => false,
    );
    if (ready) return;
    await pause(50);
  }
  throw new Error(`it was not ready after ${START_MS / 1000} s`);
}

async function query(url: string, expression: string): Promise<Sample[]> {
  type Raw = { metric: Record<string, string>; value: [number, string] };
  const parameters = new URLSearchParams({ query: expression });
  const { result, resultType } = await get<{ resultType: string; result: Raw[] | Raw['value'] }>(
    `${url}/api/v1/query?${parameters}`,
  );
  if (resultType === 'scalar') return [{ metric: {}, value: Number(result[1]) }];
  return (result as Raw[]).map(({ metric, value }) => ({ metric, value: Number(value[1]) }));
}

async function get<T>(url: string): Promise<T> {
  const body = (await (await fetch(url)).json()) as { status: string; error?: string; data: T };
  if (body.status !== 'success') throw new Error(`${url}: ${body.error}`);
  return body.data;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

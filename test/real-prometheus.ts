import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FoundProgram, findProgram, onFreePorts, skipWithout, startProgram } from './real-program.ts';

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

/** The path of a program of Prometheus', or why there is none: MESH_PROMETHEUS_DIR, PATH, then .mesh/bin (.ci/install-debian). */
function findPrometheus(program: 'prometheus' | 'promtool'): FoundProgram {
  return findProgram(program, { variable: 'MESH_PROMETHEUS_DIR', inFolder: true, install: 'prometheus' });
}

/** For the `skip` of a test that wants a real Prometheus. */
export function skipWithoutPrometheus(): string | false {
  return skipWithout(findPrometheus('prometheus'), findPrometheus('promtool'));
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

/**
 * Starts a Prometheus with an empty database on a free port of 127.0.0.1 and waits until it is ready. Throws, with what
 * it printed, when it is not within 20 s, or when there is no binary.
 */
export async function startRealPrometheus(config: string): Promise<RealPrometheus> {
  const found = findPrometheus('prometheus');
  if (found.binary === undefined) throw new Error(found.reason);
  const { binary } = found;
  return onFreePorts(1, ([port = 0]) => start(binary, config, port));
}

async function start(binary: string, config: string, port: number): Promise<RealPrometheus> {
  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'));
  const path = join(folder, 'prometheus.yml');
  writeFileSync(path, config);
  const url = `http://127.0.0.1:${port}`;
  const options = [`--config.file=${path}`, `--storage.tsdb.path=${join(folder, 'data')}`];
  const cleanUp = () => rmSync(folder, { recursive: true, force: true });
  const { pid, printed, kill } = await startProgram(
    binary,
    [...options, `--web.listen-address=127.0.0.1:${port}`, '--web.enable-lifecycle'],
    { isReady: () => isReady(url), cleanUp },
  ).catch(error => {
    cleanUp();
    throw error;
  });
  return {
    url,
    pid,
    query: expression => query(url, expression),
    alerts: async () => (await get<{ alerts: Alert[] }>(`${url}/api/v1/alerts`)).alerts,
    async reload(text) {
      writeFileSync(path, text);
      const response = await fetch(`${url}/-/reload`, { method: 'POST' });
      const body = await response.text();
      if (!response.ok) throw new Error(`${body}\n${printed()}\n${readFileSync(path, 'utf8')}`);
    },
    async close() {
      await kill();
      cleanUp();
    },
  };
}

async function isReady(url: string): Promise<boolean> {
  return fetch(`${url}/-/ready`).then(
    async response => (await response.text()) !== '' && response.ok,
    () => false,
  );
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

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adHocService, type Service } from '../../../mesh/registry.ts';
import { buildWorker } from '../../../workers/fleet/bundle.ts';
import { WorkerProcess } from '../../../workers/fleet/worker-process.ts';
import { ECHO, serverBelow } from './references.ts';
import { openCallers, type Target } from './target.ts';

export interface BenchWorker extends Target {
  pid: number;
  /** Its MCP endpoint. */
  url: URL;
}

interface WorkerOptions {
  program: string;
  env?: Record<string, string>;
  service?: Partial<Service>;
  name?: string;
}

/** Name of the service that the worker hosts. */
export const SERVICE = 'echo';

/** Bundles the worker as `mesh up` does; `remove` removes it. */
export async function bundleWorker(): Promise<{ program: string; remove(): void }> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-worker-'));
  const program = await buildWorker(join(folder, 'worker.mjs'));
  return { program, remove: () => rmSync(folder, { recursive: true }) };
}

/** A worker alone, started by the class and with the environment that `mesh up` starts it by. Resolves once it listens. */
export async function startWorker({
  program,
  env = {},
  service = {},
  name = 'worker',
}: WorkerOptions): Promise<BenchWorker> {
  const [command, ...args] = ECHO;
  const { PATH, HOME } = process.env;
  const started = Promise.withResolvers<number>();
  const worker = new WorkerProcess(
    {
      program,
      service: { ...adHocService({ name: SERVICE, command, args }), ...service },
      port: 0,
      env: { PATH, HOME, MESH_LOG_LEVEL: 'error', MESH_ADVERTISE_ADDRESS: '127.0.0.1', ...env },
    },
    {
      onReport: report => {
        if (report.type === 'listening') started.resolve(report.port);
      },
      onLine: line => process.stderr.write(`${line}\n`),
    },
  );
  void worker.ended.then(({ how }) => started.reject(new Error(how)));
  const url = new URL(`http://127.0.0.1:${await started.promise}/mcp`);
  const pid = worker.pid ?? 0;
  return {
    name,
    pid,
    url,
    pids: () => ({ worker: pid, ...serverBelow(pid) }),
    open: shape => openCallers(url, shape),
    async stop() {
      worker.stop(0);
      await worker.ended;
    },
  };
}

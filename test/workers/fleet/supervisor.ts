import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { startConsul } from '../../../kong/dev/consul.ts';
import { type ControlClient, connectControl } from '../../../workers/fleet/control-client.ts';
import { descendants, isAlive, ROOT } from '../../e2e/mesh-process.ts';
import { until, workerProgram } from './helpers.ts';

export interface Supervisor {
  child: ChildProcess;
  pid: number;
  /** What it said first: "started", or why not. */
  said: string;
}

export interface Site {
  registryPath: string;
  socket: string;
  control: ControlClient;
  /** Starts a supervisor of the registry. */
  start(options?: { socket?: string; environment?: Record<string, string> }): Promise<Supervisor>;
}

const FIXTURE = join(ROOT, 'test/fixtures/fleet/supervisor.mjs');

/** A registry, a Consul, and the supervisors that are started for them; all ends with the test. */
export async function createSite(t: TestContext, services: readonly object[]): Promise<Site> {
  const folder = mkdtempSync(join(tmpdir(), 'fleet-site-'));
  const registryPath = join(folder, 'registry.yaml');
  writeFileSync(registryPath, JSON.stringify({ version: 1, mcp_services: services }));
  const consul = await startConsul();
  const program = await workerProgram();
  const started: Supervisor[] = [];
  const socket = join(folder, 'fleet.sock');
  t.after(async () => {
    for (const { child, pid } of started) {
      const below = descendants(pid);
      child.kill('SIGTERM');
      child.kill('SIGCONT');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      await until('end of all processes', () => below.every(one => !isAlive(one.pid)));
    }
    await consul.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const { PATH = '', HOME = '' } = process.env;
  return {
    registryPath,
    socket,
    control: connectControl(socket),
    async start({ socket: controlPath = socket, environment = {} } = {}) {
      const options = {
        registryPath,
        controlPath,
        program,
        consul: { url: consul.url },
        environment: {
          PATH,
          HOME,
          CONSUL_HTTP_ADDR: consul.url,
          MESH_ADVERTISE_ADDRESS: '127.0.0.1',
          MESH_LOG_LEVEL: 'warn',
          MESH_DRAIN_IDLE_MS: '0',
          MESH_DRAIN_DEADLINE_MS: '1000',
          ...environment,
        },
      };
      const child = spawn(process.execPath, [FIXTURE, JSON.stringify(options)], {
        cwd: ROOT,
        env: { PATH, HOME },
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      const supervisor = { child, pid: child.pid ?? 0, said: '' };
      started.push(supervisor);
      const lines = createInterface({ input: child.stdout });
      [supervisor.said] = (await once(lines, 'line')) as [string];
      lines.resume();
      return supervisor;
    },
  };
}

/** All processes below a supervisor, when so many instances are ready. */
export async function processesOf(
  { control }: Site,
  { pid }: Supervisor,
  instances: number,
): Promise<number[]> {
  await until(`${instances} ready instances`, async () => {
    const { instances: rows } = await control.status();
    return rows.length === instances && rows.every(({ state }) => state === 'ready');
  });
  return descendants(pid).map(found => found.pid);
}

import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext } from 'node:test';
import { startConsul } from '../../../kong/dev/consul.ts';
import { buildWorker } from '../../../workers/fleet/bundle.ts';
import { type Fleet, type FleetOptions, startFleet } from '../../../workers/fleet/fleet.ts';
import type { InstanceRow } from '../../../workers/fleet/status.ts';
import { collectCleanUps } from '../../e2e/fleet-harness.ts';
import { untilWithin } from '../../until.ts';
import { SCRIPTED, silentLog } from '../helpers.ts';

export interface TestFleet {
  fleet: Fleet;
  consulUrl: string;
  folder: string;
  /** Runs before what was cleaned up so far. */
  cleanUp(work: () => unknown): void;
  /** Writes the registry file as an editor does: at once. */
  write(services: readonly object[] | string): void;
  rows(service?: string): InstanceRow[];
  /** Waits until so many instances of a service are ready, and there are no others. */
  ready(service: string, count: number): Promise<InstanceRow[]>;
  /** Waits until Consul has so many passing instances of a service; `role` as in its meta. */
  passing(service: string, count: number, role?: string): Promise<void>;
}

type Options = Partial<Omit<FleetOptions, 'environment' | 'times'>> & {
  times?: FleetOptions['times'];
  /** More of a service's workers' environment. */
  worker?: Record<string, string> | ((service: string) => Record<string, string>);
};

/** For a state of the fleet: processes have to start and to end for it, and those of other tests do, too. */
export const until = untilWithin(100_000);

/** So that a test takes seconds; what they are about is the same. */
const TIMES = { restartFirstMs: 100, parkedMs: 60_000, upMs: 300, downMs: 600, idleMs: 1000, stopMs: 15_000 };

let folder: string | undefined;
let program: Promise<string> | undefined;
after(() => folder && rmSync(folder, { recursive: true, force: true }));

/** The worker as one file, built once for a test file: fleets start many. */
export function workerProgram(): Promise<string> {
  folder ??= mkdtempSync(join(tmpdir(), 'fleet-worker-'));
  program ??= buildWorker(join(folder, 'worker.mjs'));
  return program;
}

/** A service of the scripted fixture. */
export function scripted(name: string, fields: object = {}): object {
  return { name, command: process.execPath, args: [SCRIPTED], ...fields };
}

export async function startTestFleet(
  t: TestContext,
  services: readonly object[],
  { worker = {}, times = {}, ...options }: Options = {},
): Promise<TestFleet> {
  const cleanUps = collectCleanUps();
  t.after(() => cleanUps.run());
  const own = mkdtempSync(join(tmpdir(), 'fleet-test-'));
  cleanUps.add(() => rmSync(own, { recursive: true, force: true }));
  const registryPath = join(own, 'registry.yaml');
  const write = (content: readonly object[] | string) => {
    const text =
      typeof content === 'string' ? content : JSON.stringify({ version: 1, mcp_services: content });
    writeFileSync(`${registryPath}.new`, text);
    renameSync(`${registryPath}.new`, registryPath);
  };
  write(services);
  const consul = await startConsul();
  cleanUps.add(() => consul.close());
  const { PATH = '', HOME = '' } = process.env;
  const environment = {
    PATH,
    HOME,
    CONSUL_HTTP_ADDR: consul.url,
    MESH_ADVERTISE_ADDRESS: '127.0.0.1',
    MESH_DRAIN_IDLE_MS: '0',
    MESH_DRAIN_DEADLINE_MS: '5000',
  };
  const fleet = await startFleet({
    registryPath,
    env: {},
    environment: ({ name }) => ({
      ...environment,
      ...(typeof worker === 'function' ? worker(name) : worker),
    }),
    consul: { url: consul.url },
    program: await workerProgram(),
    log: silentLog,
    print: () => {},
    pollMs: 50,
    times: { ...TIMES, ...times },
    ...options,
  });
  cleanUps.add(() => fleet.stop({ idleMs: 0, killMs: 10_000 }));
  const rows = (service?: string) =>
    fleet.status().instances.filter(row => service === undefined || row.service === service);
  return {
    fleet,
    consulUrl: consul.url,
    folder: own,
    cleanUp: cleanUps.add,
    write,
    rows,
    async ready(service, count) {
      const isThere = () => {
        const found = rows(service);
        return found.length === count && found.every(({ state }) => state === 'ready') && found;
      };
      return until(`${count} ready instances of ${service}`, isThere, () => JSON.stringify(rows(service)));
    },
    async passing(service, count, role) {
      let seen: unknown;
      const look = async () => {
        const response = await fetch(`${consul.url}/v1/health/service/mcp-${service}?passing`);
        const entries = (await response.json()) as { Service: { Meta: Record<string, string> } }[];
        seen = entries;
        return entries.filter(({ Service }) => Service.Meta.role === role).length === count;
      };
      await until(`${count} passing instances of ${service}`, look, () => JSON.stringify(seen));
    },
  };
}

/** Calls a tool at a worker itself. */
export async function callAt(
  row: InstanceRow | undefined,
  command: string,
  params: object = {},
): Promise<string> {
  const response = await fetch(`http://${row?.address}/execute`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ command, params }),
  });
  const body = (await response.json()) as { content?: { text: string }[] };
  return body.content?.[0]?.text ?? JSON.stringify(body);
}

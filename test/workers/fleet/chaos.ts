import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { startConsul } from '../../../kong/dev/consul.ts';
import { buildWorker } from '../../../workers/fleet/bundle.ts';
import { type Fleet, startFleet } from '../../../workers/fleet/fleet.ts';
import type { InstanceRow } from '../../../workers/fleet/status.ts';
import { collectCleanUps } from '../../e2e/fleet-harness.ts';
import { isAlive } from '../../e2e/mesh-process.ts';
import { SCRIPTED, silentLog } from '../helpers.ts';

export interface ChaosOptions {
  services: number;
  calls: number;
  kills: number;
  /** Calls under way at any time. */
  inFlight?: number;
  report?(text: string): void;
}

/** What there is of a fleet, its own processes found by a mark in their environment, wherever they went. */
export interface Counts {
  processes: number;
  zombies: number;
  /** Of the supervisor. */
  descriptors: number;
  /** What it uses, garbage collected; its resident memory tells more of the collector than of leaks. */
  heapMb: number;
  rssMb: number;
}

export interface ChaosResult {
  before: Counts;
  after: Counts;
  stopped: Counts;
  answered: number;
  failed: number;
  signals: Record<string, number>;
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const MARK = 'FLEET_CHAOS';
const SIGNALS = ['SIGKILL', 'SIGSTOP', 'SIGTERM'] as const;
const STOPPED_MAX_MS = 500;
const DEADLINE_MS = 120_000;
/** A call that has not ended by then never will. */
const PATIENCE_MS = 90_000;

/** Calls tools while workers and servers are killed, stopped and told to end, at random. */
export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const cleanUps = collectCleanUps();
  try {
    return await run(options, cleanUps.add);
  } finally {
    await cleanUps.run();
  }
}

async function run(options: ChaosOptions, add: (cleanUp: () => unknown) => void): Promise<ChaosResult> {
  const { services, calls, kills, inFlight = 16, report = () => {} } = options;
  const folder = mkdtempSync(join(tmpdir(), 'fleet-chaos-'));
  add(() => rmSync(folder, { recursive: true, force: true }));
  const consul = await startConsul();
  add(() => consul.close());
  const mark = randomUUID();
  const fleet = await startChaosFleet({ folder, mark, services, consulUrl: consul.url });
  add(() => fleet.stop({ idleMs: 0, killMs: 10_000 }));
  await allReady(fleet);
  // What is loaded and connected at first use is none of what this is about.
  await Promise.all(fleet.status().instances.map(({ address }) => callOnce(address ?? '')));
  await pause(1000);
  const before = countAll(mark);
  report(`before:  ${JSON.stringify(before)}`);

  const tally = { answered: 0, failed: 0 };
  let left = calls;
  const callers = Array.from({ length: inFlight }, async () => {
    while (left > 0) {
      left -= 1;
      const row = await someReady(fleet);
      if (await callOnce(row.address ?? '')) tally.answered += 1;
      else tally.failed += 1;
      await pause(Math.random() * 20);
    }
  });
  const signals = await harass(mark, kills, done =>
    report(`${done} of ${kills} signals; ${JSON.stringify(tally)}`),
  );
  await Promise.all(callers);
  await allReady(fleet);
  const after = await settledCounts(mark, before);
  report(`after:   ${JSON.stringify(after)}`);
  await fleet.stop({ idleMs: 0, killMs: 10_000 });
  const stopped = countAll(mark);
  report(`stopped: ${JSON.stringify(stopped)}`);
  return { before, after, stopped, signals, ...tally };
}

async function startChaosFleet(site: {
  folder: string;
  mark: string;
  services: number;
  consulUrl: string;
}): Promise<Fleet> {
  const { folder, mark, services, consulUrl } = site;
  const registryPath = join(folder, 'registry.yaml');
  const mcp_services = Array.from({ length: services }, (_, index) => ({
    name: `s${index}`,
    command: process.execPath,
    args: [SCRIPTED],
    env: { [MARK]: mark },
  }));
  writeFileSync(registryPath, JSON.stringify({ version: 1, mcp_services }));
  const { PATH = '', HOME = '' } = process.env;
  return startFleet({
    registryPath,
    env: {},
    consul: { url: consulUrl },
    program: await buildWorker(join(folder, 'worker.mjs')),
    environment: () => ({
      PATH,
      HOME,
      [MARK]: mark,
      CONSUL_HTTP_ADDR: consulUrl,
      MESH_ADVERTISE_ADDRESS: '127.0.0.1',
      MESH_DRAIN_IDLE_MS: '0',
      MESH_DRAIN_DEADLINE_MS: '2000',
    }),
    log: silentLog,
    print: () => {},
    // One that ran for a moment counts as healthy: how long a crash loop waits is tested elsewhere.
    times: { restartFirstMs: 100, sustainedMs: 500, stopMs: 10_000 },
  });
}

/** Sends signals to workers and servers at random; resolves with how many there were of each. */
async function harass(
  mark: string,
  kills: number,
  report: (done: number) => void,
): Promise<Record<string, number>> {
  const sent: Record<string, number> = {};
  for (let done = 0; done < kills; ) {
    await pause(Math.random() * 100);
    const pids = markedPids(mark);
    const pid = pids[Math.floor(Math.random() * pids.length)];
    const signal = SIGNALS[Math.floor(Math.random() * SIGNALS.length)] ?? 'SIGKILL';
    if (pid === undefined || !send(pid, signal)) continue;
    done += 1;
    sent[signal] = (sent[signal] ?? 0) + 1;
    if (signal === 'SIGSTOP') setTimeout(() => send(pid, 'SIGCONT'), Math.random() * STOPPED_MAX_MS);
    if (done % 100 === 0) report(done);
  }
  await pause(STOPPED_MAX_MS);
  return sent;
}

function send(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch {
    return false;
  }
}

async function someReady(fleet: Fleet): Promise<InstanceRow> {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const rows = fleet.status().instances.filter(({ state }) => state === 'ready');
    const row = rows[Math.floor(Math.random() * rows.length)];
    if (row) return row;
    if (Date.now() > deadline) throw new Error(`none is ready: ${JSON.stringify(fleet.status().instances)}`);
    await pause(50);
  }
}

async function allReady(fleet: Fleet): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS;
  while (!fleet.status().instances.every(({ state }) => state === 'ready')) {
    if (Date.now() > deadline)
      throw new Error(`not all are ready: ${JSON.stringify(fleet.status().instances)}`);
    await pause(100);
  }
}

/** Ends of processes and sockets come in their own time; the deadline is for what never ends. */
async function settledCounts(mark: string, before: Counts): Promise<Counts> {
  const deadline = Date.now() + DEADLINE_MS / 4;
  for (;;) {
    const now = countAll(mark);
    const isBack =
      now.processes === before.processes && now.zombies === 0 && now.descriptors <= before.descriptors;
    if (isBack || Date.now() > deadline) return now;
    await pause(200);
  }
}

function countAll(mark: string): Counts {
  collectGarbage();
  const { rss, heapUsed, external } = process.memoryUsage();
  return {
    processes: markedPids(mark).length,
    zombies: childrenOf(process.pid).filter(pid => !isAlive(pid)).length,
    descriptors: readdirSync('/proc/self/fd').length,
    heapMb: Math.round((heapUsed + external) / 1e6),
    rssMb: Math.round(rss / 1e6),
  };
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => readProc(pid, 'status').includes(`\nPPid:\t${parent}\n`));
}

function markedPids(mark: string): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => pid !== process.pid && readProc(pid, 'environ').includes(`${MARK}=${mark}`));
}

function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return '';
  }
}

/** Whether the answer is the one to this call; never rejects. @throws Error when no end comes */
function callOnce(address: string): Promise<boolean> {
  const [host, port] = address.split(':');
  const text = randomUUID();
  const body = JSON.stringify({ command: Math.random() < 0.5 ? 'echo' : 'slow', params: { text, ms: 20 } });
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`a call at ${address} never ended`)), PATIENCE_MS);
    const end = (ok: boolean) => {
      clearTimeout(late);
      resolve(ok);
    };
    const call = request(
      {
        host,
        port,
        path: '/execute',
        method: 'POST',
        agent: false,
        headers: { 'content-type': 'application/json' },
      },
      response => {
        let answer = '';
        response.setEncoding('utf8').on('data', chunk => (answer += chunk));
        response.on('close', () =>
          end(response.complete && (answer.includes(text) || answer.includes('slept'))),
        );
      },
    );
    call.on('error', () => end(false));
    call.end(body);
  });
}

import { setTimeout as pause } from 'node:timers/promises';
import { INITIALIZE } from '../../workers/helpers.ts';
import { type BenchMesh, SERVICE, type Status, withMesh } from './mesh.ts';

export interface StampedeOptions {
  gateways: number;
  instances: number;
  /** Calls of each gateway, all within the time of one. */
  calls: number;
  /** Time of a call; less than half of the reports' age, by when what they say has to be over. */
  paceMs: number;
  /** Calls that wait at each instance but the first when it reports, as many as are inside. */
  waiting: number;
}

/** At least. */
const STALE_MS = 2000;
/** For calls to be in place, and for log phases to end. */
const SETTLE_MS = 150;
/** On a busy machine a call may be over before everybody has heard of it. */
const ATTEMPTS = 5;

/**
 * The largest share that an instance gets, in fair shares, when all gateways believe for 2 s already that the others
 * have calls waiting, which is no longer true, and hear nothing new while they choose.
 */
export function measureStampede(options: StampedeOptions): Promise<number> {
  const paces = Array.from({ length: options.instances }, () => options.paceMs);
  const service = { concurrency: options.waiting, queue: 1024, load_balancer: 'ROUND_ROBIN' };
  return withMesh({ gateways: options.gateways, paces, service }, async mesh => {
    await learnLatencies(mesh, options);
    const reportedAt = await mislead(mesh, options.waiting);
    await mesh.useStrategy('ADAPTIVE');
    await pause(Math.max(0, reportedAt + STALE_MS - performance.now()));
    const counts = await storm(mesh, options);
    const fair = (options.calls * options.gateways) / options.instances;
    return Math.max(...counts.values()) / fair;
  });
}

/** Every gateway finds every instance equally quick. */
async function learnLatencies(mesh: BenchMesh, { instances }: StampedeOptions): Promise<void> {
  await Promise.all(
    mesh.gateways.flatMap(gateway => Array.from({ length: instances * 2 }, () => mesh.work(urlOf(gateway)))),
  );
}

/**
 * Makes all gateways hear that calls wait everywhere but at the first instance. Resolves with the time of the reports,
 * when the calls that made them true have ended.
 */
async function mislead(mesh: BenchMesh, waiting: number): Promise<number> {
  const [, ...busy] = mesh.workers;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const held = busy.flatMap(({ port }) =>
      Array.from({ length: 2 * waiting }, () => mesh.work(`http://127.0.0.1:${port}`)),
    );
    await pause(SETTLE_MS);
    // An answer that takes no place in the server carries a report like any other.
    const asked = mesh.gateways.flatMap(gateway =>
      mesh.workers.map(() => mesh.post(urlOf(gateway), INITIALIZE)),
    );
    await Promise.all(asked);
    const reportedAt = performance.now();
    await pause(SETTLE_MS);
    const told = await Promise.all(mesh.gateways.map(mesh.status));
    await Promise.all(held);
    if (told.every(status => isTold(status, busy.length, waiting))) return reportedAt;
  }
  throw new Error(`the gateways did not hear of the waiting calls in time:\n${mesh.output()}`);
}

function isTold({ details }: Status, busy: number, waiting: number): boolean {
  const depths = details.map(({ load }) => load?.queue_depth ?? -1);
  return depths.filter(depth => depth === waiting).length === busy && depths.includes(0);
}

/** How many calls each server got. */
async function storm(mesh: BenchMesh, { calls, paceMs }: StampedeOptions): Promise<Map<string, number>> {
  const answers: Promise<string>[] = [];
  const start = performance.now();
  for (let i = 0; i < calls; i += 1) {
    const early = start + (i * paceMs * 0.8) / calls - performance.now();
    if (early > 0) await pause(early);
    for (const gateway of mesh.gateways) answers.push(mesh.work(urlOf(gateway)));
  }
  const counts = new Map<string, number>();
  for (const server of await Promise.all(answers)) counts.set(server, (counts.get(server) ?? 0) + 1);
  return counts;
}

function urlOf({ url }: { url: string }): string {
  return `${url}/api/v1/mcp/${SERVICE}`;
}

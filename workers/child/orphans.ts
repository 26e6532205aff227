import { readdirSync, readlinkSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { cgroupBase, sweepCgroups } from './cgroup.ts';
import { ProcessTable, readProcess } from './process-table.ts';

/**
 * What ends the processes of a child, by what befell it:
 *
 * | What                                   | Ended by                                                       |
 * |----------------------------------------|----------------------------------------------------------------|
 * | leader ends, its group lives           | SIGKILL to the group at once; on a stop, after its time        |
 * | left the group (setsid, double fork)   | the tag in the environment, swept when the child ends          |
 * | left the group with `env -i`           | its session or parent, if it was seen before; else its cgroup  |
 * | worker is killed -9, leader            | stdin's end; else `setpriv --pdeathsig`                        |
 * | worker is killed -9, the rest          | stdin's end; else the sweep by the next worker that starts     |
 *
 * pdeathsig is bound to the THREAD that spawned (the main one here), is not inherited by forks, and is dropped by
 * set-user-id programs: it narrows the gap, and the sweep closes it. Only processes of our own user that carry a tag,
 * or descend from one that did, are ever signalled.
 */

/** Name of the temp folder of a child, before its tag. */
export const FOLDER_PREFIX = 'mcp-mesh-';

/** Pids mean something within one pid namespace only: a worker in a container and one on its host may share a /tmp. */
const NAMESPACE = pidNamespace();
const SELF = `${NAMESPACE}-${process.pid}-${readProcess(process.pid)?.startTime ?? 0}`;
const TAG_PATTERN = /^(\d+)-(\d+)-(\d+)\.\d+$/;
const ROUND_MS = 20;
/** A process that a SIGKILL has not ended in this many rounds is stuck in the kernel (a dead NFS mount). */
const ROUNDS = 100;

export const processes = new ProcessTable();

let runs = 0;

/** A tag for one run of a child: no other run, of this worker or another one, ever has the same. */
export function newTag(): string {
  runs += 1;
  return `${SELF}.${runs}`;
}

/** Kills every process of a run, wherever it went; resolves with how many there were when none is left. */
export async function killFamily(tag: string, log: Logger): Promise<number> {
  const seen = new Set<number>();
  for (let round = 0; round < ROUNDS; round += 1) {
    processes.refresh();
    const members = processes.family(tag);
    if (members.length === 0) return seen.size;
    for (const { pid } of members) {
      seen.add(pid);
      kill(pid);
    }
    await delay(ROUND_MS);
  }
  log.error({ pids: [...seen] }, 'processes of the server do not end on SIGKILL: look at them by hand');
  return seen.size;
}

/**
 * Ends what the children of workers that are gone left behind, and removes their temp folders and cgroups. For the
 * start of a worker, and of whoever starts workers.
 */
export async function sweepOrphans(log: Logger, folder = tmpdir()): Promise<void> {
  if (process.pid === 1) {
    const cure = 'run the container with an init (docker run --init)';
    log.warn(`nobody waits for what servers leave behind, so zombies stay: ${cure}`);
  }
  processes.refresh();
  const orphaned = [...processes.tags()].filter(isOrphaned);
  const counts = await Promise.all(orphaned.map(tag => killFamily(tag, log)));
  const killed = counts.reduce((sum, count) => sum + count, 0);
  if (killed > 0)
    log.warn({ killed }, 'processes of a worker that was killed were still there: they are ended');
  const base = cgroupBase(log);
  if (base !== undefined) sweepCgroups(base, isOrphaned);
  for (const name of listFolders(folder)) {
    const tag = name.slice(FOLDER_PREFIX.length, name.lastIndexOf('-'));
    if (isOrphaned(tag)) await rm(join(folder, name), { recursive: true, force: true }).catch(() => {});
  }
}

/** Whether the tag's worker lived in our pid namespace and lives no more. */
function isOrphaned(tag: string): boolean {
  const [, namespace, pid, startTime] = TAG_PATTERN.exec(tag) ?? [];
  if (namespace !== NAMESPACE || namespace === '0') return false;
  const worker = readProcess(Number(pid));
  return !worker || worker.zombie || worker.startTime !== startTime;
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended since it was listed.
  }
}

function listFolders(folder: string): string[] {
  try {
    return readdirSync(folder).filter(name => name.startsWith(FOLDER_PREFIX));
  } catch {
    return [];
  }
}

/** "0" where there is no /proc: then nothing can be said of other workers. */
function pidNamespace(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0';
  } catch {
    return '0';
  }
}

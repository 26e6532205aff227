import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { sweepOrphans } from '../child/orphans.ts';
import { readProcess } from '../child/process-table.ts';

/**
 * Workers of a supervisor that is gone. They end by themselves when its IPC channel closes; here are those that cannot,
 * since they were stopped (SIGSTOP) or are stuck, and the servers of those that were killed in the same instant.
 */

/** In a worker's environment, never in its server's: which supervisor started it, `<mesh>:<pid>:<start time>`. */
export const WORKER_VARIABLE = 'MCP_MESH_WORKER';

/** Whatever their environment says. */
const UNTOUCHABLE: ReadonlySet<number> = new Set([0, 1, process.pid, process.ppid]);

interface Orphan {
  pid: number;
  startTime: string;
}

const PREFIX = `${WORKER_VARIABLE}=`;
const MARK_PATTERN = /^([0-9a-f]{12}):([1-9]\d*):([1-9]\d*)$/;
const POLL_MS = 50;
/** What is under way in a worker that drains has this long: its ports and ids are wanted. */
const GRACE_MS = 5000;

/** Names the mesh of a registry file: its supervisors, whichever way they spell the path, are each other's successors. */
export function meshIdOf(registryPath: string): string {
  let path = registryPath;
  try {
    path = realpathSync(registryPath);
  } catch {
    // Whoever reads it says what is wrong with it.
  }
  return createHash('sha256').update(path).digest('hex').slice(0, 12);
}

/** The mark that a supervisor puts on its workers; no other process, past or present, has the same. */
export function markOf(meshId: string, pid = process.pid): string {
  return `${meshId}:${pid}:${readProcess(pid)?.startTime ?? 0}`;
}

/**
 * Ends the workers that dead supervisors of this mesh left behind, and what children of dead workers left. Processes of
 * other users, of other meshes and of a supervisor that lives are not touched.
 */
export async function sweepFleet(meshId: string, log: Logger, graceMs = GRACE_MS): Promise<void> {
  const orphans = findOrphans(meshId);
  if (orphans.length > 0) {
    log.warn({ pids: orphans.map(({ pid }) => pid) }, 'workers of a supervisor that is gone are ended');
    for (const orphan of orphans) signal(orphan, 'SIGCONT');
    const deadline = Date.now() + graceMs;
    while (Date.now() < deadline && orphans.some(isAlive)) await delay(POLL_MS);
    for (const orphan of orphans) signal(orphan, 'SIGKILL');
    while (orphans.some(isAlive)) await delay(POLL_MS);
  }
  await sweepOrphans(log);
}

/**
 * Whether a process with this mark is a worker of this mesh whose supervisor is gone. Only a whole mark says so: what
 * has none, or another text, is somebody else's, and a doubt must never end in a signal.
 */
export function isOrphanMark(
  mark: string | undefined,
  meshId: string,
  lives: (supervisor: { pid: number; startTime: string }) => boolean,
): boolean {
  const [, mesh, pid, startTime] = MARK_PATTERN.exec(mark ?? '') ?? [];
  if (mesh === undefined || pid === undefined || startTime === undefined) return false;
  return mesh === meshId && !lives({ pid: Number(pid), startTime });
}

function findOrphans(meshId: string): Orphan[] {
  const orphans: Orphan[] = [];
  for (const name of readdirOf('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || UNTOUCHABLE.has(pid)) continue;
    if (!isOrphanMark(readMark(pid), meshId, isAlive)) continue;
    const own = readProcess(pid);
    if (own && !own.zombie) orphans.push({ pid, startTime: own.startTime });
  }
  return orphans;
}

/** undefined also for a process of another user: its environment cannot be read, except by root. */
function readMark(pid: number): string | undefined {
  try {
    if (process.geteuid?.() === 0 && !isOurs(pid)) return undefined;
    const variables = readFileSync(`/proc/${pid}/environ`, 'latin1');
    if (!variables.includes(PREFIX)) return undefined;
    const found = variables.split('\0').find(variable => variable.startsWith(PREFIX));
    return found?.slice(PREFIX.length);
  } catch {
    return undefined;
  }
}

function isOurs(pid: number): boolean {
  return /^Uid:\s+0\s/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
}

function isAlive({ pid, startTime }: Orphan): boolean {
  const found = readProcess(pid);
  return found !== undefined && !found.zombie && found.startTime === startTime;
}

function signal(orphan: Orphan, name: NodeJS.Signals): void {
  if (!isAlive(orphan)) return;
  try {
    process.kill(orphan.pid, name);
  } catch {
    // It has ended since it was looked at.
  }
}

function readdirOf(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

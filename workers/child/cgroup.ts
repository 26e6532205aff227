import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Logger } from 'pino';
import type { Service } from '../../mesh/registry.ts';

/** The kernel's own bounds round the processes of one child. */
export interface ChildCgroup {
  add(pid: number): void;
  /** Whether the kernel killed for lack of memory. */
  outOfMemory(): boolean;
  /** Kills all that are in it, wherever they went (Linux 5.14). */
  kill(): void;
  /** Removes it; false while processes are in it. */
  remove(): boolean;
}

/** Where the mesh's own processes go: a cgroup with controllers for its children must be empty (cgroup-v2, "no internal processes"). */
const OWN_GROUP = 'mcp-mesh';
const CONTROLLERS = ['memory', 'pids'];
/** pids.max counts threads, `limits.processes` does not: a server of the JVM has some thirty in each process. */
const THREADS_PER_PROCESS = 32;

let opened: { base: string | undefined } | undefined;

/**
 * The cgroup that this worker may give its children groups in; undefined where cgroup v2 is not ours to write (most
 * containers mount it read-only; under systemd, `Delegate=yes` hands it over). Whoever starts workers calls this
 * first: the workers then start inside the group that it has made.
 */
export function cgroupBase(log: Logger): string | undefined {
  opened ??= { base: openBase(log) };
  return opened.base;
}

/** A group for one child, named by its tag; undefined when it cannot be made. */
export function createCgroup(
  base: string,
  tag: string,
  { limits }: Service,
  log: Logger,
): ChildCgroup | undefined {
  const path = join(base, `${OWN_GROUP}.${tag}`);
  const set = (file: string, value: string | number) => writeFileSync(join(path, file), String(value));
  try {
    mkdirSync(path);
    set('memory.max', limits.memory_mb * 1024 * 1024);
    // One process that is gone would leave a server that answers nothing any more: all of it goes.
    set('memory.oom.group', 1);
    set('pids.max', limits.processes * THREADS_PER_PROCESS);
    // Without it the server would fill the machine's swap first.
    if (existsSync(join(path, 'memory.swap.max'))) set('memory.swap.max', 0);
  } catch (error) {
    log.warn({ err: error, path }, 'the server gets no cgroup: its memory is watched instead');
    removeFolder(path);
    return undefined;
  }
  return {
    add: pid => attempt(() => set('cgroup.procs', pid)),
    outOfMemory: () => Number(/^oom_kill (\d+)/m.exec(read(path, 'memory.events'))?.[1] ?? 0) > 0,
    kill: () => attempt(() => set('cgroup.kill', 1)),
    remove: () => removeFolder(path),
  };
}

/** Ends and removes the groups of children whose tag says that their worker is gone. */
export function sweepCgroups(base: string, isOrphaned: (tag: string) => boolean): void {
  attempt(() => {
    for (const name of readdirSync(base)) {
      if (!name.startsWith(`${OWN_GROUP}.`) || !isOrphaned(name.slice(OWN_GROUP.length + 1))) continue;
      attempt(() => writeFileSync(join(base, name, 'cgroup.kill'), '1'));
      removeFolder(join(base, name));
    }
  });
}

function openBase(log: Logger): string | undefined {
  const own = ownCgroup();
  if (own === undefined) return undefined;
  const base = basename(own) === OWN_GROUP ? dirname(own) : own;
  const available = read(base, 'cgroup.controllers').split(/\s+/);
  if (!CONTROLLERS.every(controller => available.includes(controller))) return undefined;
  try {
    delegate(base, own);
    return base;
  } catch (error) {
    const cure = 'for limits by the kernel run under systemd with Delegate=yes, alone in its cgroup';
    log.info(
      { cgroup: base, err: error },
      `the cgroup is not ours to divide: servers are watched instead; ${cure}`,
    );
    return undefined;
  }
}

/** @throws when the folder is read-only, or other processes are in the group */
function delegate(base: string, own: string): void {
  const enabled = read(base, 'cgroup.subtree_control').split(/\s+/);
  if (CONTROLLERS.every(controller => enabled.includes(controller))) return;
  const leaf = join(base, OWN_GROUP);
  mkdirSync(leaf, { recursive: true });
  writeFileSync(join(leaf, 'cgroup.procs'), String(process.pid));
  try {
    writeFileSync(join(base, 'cgroup.subtree_control'), CONTROLLERS.map(name => `+${name}`).join(' '));
  } catch (error) {
    attempt(() => writeFileSync(join(own, 'cgroup.procs'), String(process.pid)));
    removeFolder(leaf);
    throw error;
  }
}

/** Folder of the cgroup v2 that we are in. */
function ownCgroup(): string | undefined {
  const path = /^0::(.*)$/m.exec(read('/proc/self', 'cgroup'))?.[1];
  // mountinfo: id, parent, device, root, mount point, options, optional fields, "-", type (proc_pid_mountinfo(5)).
  const mount = /^\d+ \d+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(read('/proc/self', 'mountinfo'))?.[1];
  return path === undefined || mount === undefined ? undefined : join(mount, path);
}

function read(folder: string, file: string): string {
  try {
    return readFileSync(join(folder, file), 'utf8');
  } catch {
    return '';
  }
}

/** True when it is gone. */
function removeFolder(path: string): boolean {
  attempt(() => rmdirSync(path));
  return !existsSync(path);
}

/** What the kernel refuses here is done by other means: the sweep, the watch. */
function attempt(action: () => void): void {
  try {
    action();
  } catch {}
}

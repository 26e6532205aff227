import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';

/** One process by Linux's /proc. */
interface ProcessEntry {
  pid: number;
  parent: number;
  group: number;
  session: number;
  /** Ended, but not waited for by its parent: nothing that a signal could end. */
  zombie: boolean;
  /** Clock ticks since the machine started; with the pid it names a process for good. */
  startTime: string;
  /** Of the process and of its children that it has waited for. */
  cpuSeconds: number;
  rssBytes: number;
}

interface Member {
  tag: string;
  startTime: string;
}

/** Without it (macOS) a child is its process group and nothing more. */
export const HAS_PROC = existsSync('/proc/self/stat');

/** Names the run of a child that a process belongs to; every descendant inherits it. */
export const TAG_VARIABLE = 'MCP_MESH_CHILD';

const TAG_PREFIX = `${TAG_VARIABLE}=`;
/** Pids come round only after all others were given out: for so long, what was judged once stays judged. */
const JUDGED_MS = 5000;
const AT_PAGE_SIZE = 6n;
const AT_CLOCK_TICKS = 17n;
const { pageBytes, ticksPerSecond } = readAuxiliaryVector();

/**
 * Which process belongs to which run of a child. A process is judged once, when it is first seen: by the tag in its
 * environment, else by its session (some overwrite their environment with a title) or its parent (`env -i`). Only what
 * belongs to us is read again, so that a look at a busy machine every second costs next to nothing.
 */
export class ProcessTable {
  /** undefined: none of ours. */
  readonly #known = new Map<number, Member | undefined>();
  readonly #leaders = new Map<number, Member>();
  #judgedAt = 0;

  /** A child that was just started. */
  addLeader(pid: number, tag: string): void {
    const member = { tag, startTime: readProcess(pid)?.startTime ?? '' };
    this.#leaders.set(pid, member);
    this.#known.set(pid, member);
  }

  /** None of the child's processes is left. */
  removeLeader(pid: number): void {
    this.#leaders.delete(pid);
  }

  /** Looks for processes that have come and gone. */
  refresh(): void {
    const now = performance.now();
    if (now - this.#judgedAt > JUDGED_MS) {
      for (const [pid, member] of this.#known) if (!member) this.#known.delete(pid);
    }
    this.#judgedAt = now;
    const present = new Set(listPids());
    for (const pid of this.#known.keys()) if (!present.has(pid)) this.#known.delete(pid);
    for (const pid of present) if (!this.#known.has(pid)) this.#known.set(pid, this.#judge(pid));
  }

  /** The live processes of a run, as of the last refresh. */
  family(tag: string): ProcessEntry[] {
    const found: ProcessEntry[] = [];
    for (const [pid, member] of this.#known) {
      if (member?.tag !== tag) continue;
      const entry = readProcess(pid);
      if (entry?.startTime !== member.startTime) this.#known.delete(pid);
      else if (!entry.zombie) found.push(entry);
    }
    return found;
  }

  /** Every tag that some process carries, of other workers, too, as of the last refresh. */
  tags(): Set<string> {
    return new Set([...this.#known.values()].flatMap(member => member?.tag ?? []));
  }

  #judge(pid: number): Member | undefined {
    const carried = readTag(pid);
    if (carried === undefined && this.#leaders.size === 0) return undefined;
    const entry = readProcess(pid);
    const tag = carried ?? (entry && this.#inherited(entry));
    if (!entry || tag === undefined || !isOurUser(pid)) return undefined;
    return { tag, startTime: entry.startTime };
  }

  #inherited({ session, parent }: ProcessEntry): string | undefined {
    const leader = this.#leaders.get(session);
    const holder = leader && readProcess(session);
    // A session outlives its leader; once it has ended, its number may be another's.
    if (leader && (!holder || holder.startTime === leader.startTime)) return leader.tag;
    return this.#known.get(parent)?.tag;
  }
}

/** undefined: there is no such process, or no /proc. */
export function readProcess(pid: number): ProcessEntry | undefined {
  const text = readProc(pid, 'stat');
  if (text === undefined) return undefined;
  // The name in parentheses may itself hold parentheses and spaces (proc_pid_stat(5)).
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const number = (index: number) => Number(fields[index]);
  return {
    pid,
    zombie: fields[0] === 'Z' || fields[0] === 'X',
    parent: number(1),
    group: number(2),
    session: number(3),
    cpuSeconds: (number(11) + number(12) + number(13) + number(14)) / ticksPerSecond,
    startTime: fields[19] ?? '',
    rssBytes: number(21) * pageBytes,
  };
}

/**
 * Memory that ends with the process, pages that it shares divided among their users: what RSS counts once for each.
 * Much slower than RSS; undefined where the kernel does not tell.
 */
export function proportionalBytes(pid: number): number | undefined {
  const text = readProc(pid, 'smaps_rollup');
  const sizes = text?.matchAll(/^(?:Pss|SwapPss):\s+(\d+) kB/gm);
  return sizes && [...sizes].reduce((sum, [, kilobytes]) => sum + Number(kilobytes) * 1024, 0);
}

function isOurUser(pid: number): boolean {
  try {
    return statSync(`/proc/${pid}`).uid === process.geteuid?.();
  } catch {
    return false;
  }
}

function readTag(pid: number): string | undefined {
  const environment = readProc(pid, 'environ');
  if (!environment?.includes(TAG_PREFIX)) return undefined;
  return environment
    .split('\0')
    .find(variable => variable.startsWith(TAG_PREFIX))
    ?.slice(TAG_PREFIX.length);
}

function readProc(pid: number, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return undefined;
  }
}

function listPids(): number[] {
  try {
    return readdirSync('/proc').filter(isNumeric).map(Number);
  } catch {
    return [];
  }
}

function isNumeric(name: string): boolean {
  const first = name.charCodeAt(0);
  return first >= 0x30 && first <= 0x39;
}

/** Node does not tell the size of a page or the length of a clock tick; the kernel tells every process (getauxval(3)). */
function readAuxiliaryVector(): { pageBytes: number; ticksPerSecond: number } {
  const found = { pageBytes: 4096, ticksPerSecond: 100 };
  try {
    const vector = new BigUint64Array(new Uint8Array(readFileSync('/proc/self/auxv')).buffer);
    for (let index = 0; index + 1 < vector.length; index += 2) {
      if (vector[index] === AT_PAGE_SIZE) found.pageBytes = Number(vector[index + 1]);
      if (vector[index] === AT_CLOCK_TICKS) found.ticksPerSecond = Number(vector[index + 1]);
    }
  } catch {
    // No /proc: nothing will be read in pages or ticks.
  }
  return found;
}

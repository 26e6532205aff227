import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import type { Instance } from '../mesh/consul.ts';

/** What discovery knew. */
export interface SavedTable {
  /** Epoch ms of the oldest answer of Consul's in it. */
  answeredAt: number;
  /** By the services' names. */
  definitions: Map<string, unknown>;
  /** By Consul's names of the services. */
  services: Map<string, Instance[]>;
}

export interface TableFile {
  /** undefined: there is none that can be used; says why unless there is simply none. */
  load(): SavedTable | undefined;
  /** Writes, within a second, what `read` then gives, when it differs from what is on disk. Never throws. */
  save(read: () => SavedTable): void;
  /** Nothing is written any more: changes of the last second are lost. */
  close(): void;
}

interface TableFileOptions {
  path: string;
  /** A line for operators: the file cannot be used; it cannot be written (once an outage); it can be again. */
  log(text: string): void;
  /** Between two writes, ms. */
  intervalMs?: number;
  /** After a write that failed, ms. */
  retryMs?: number;
}

const FORMAT = 'mcp-mesh-table';
const VERSION = 1;
const INTERVAL_MS = 1000;
const RETRY_MS = 30_000;
/** Some 100,000 instances. */
const BYTES_MAX = 128 * 1024 * 1024;
/** A temporary file that is older was left by a process that was killed. */
const ABANDONED_MS = 60_000;
const OTHERS_MAY_WRITE = 0o022;

const weights = z.object({ passing: z.number(), warning: z.number() });
const instance = z.object({
  id: z.string(),
  service: z.string(),
  node: z.string(),
  address: z.string(),
  port: z.int().min(0).max(65535),
  tags: z.array(z.string()),
  meta: z.record(z.string(), z.string()),
  weights,
  status: z.enum(['passing', 'warning', 'critical', 'maintenance']),
  reason: z.string(),
});
const header = z.object({ format: z.literal(FORMAT), version: z.int() });
const content = z.object({
  answered_at: z.int(),
  definitions: z.array(z.tuple([z.string(), z.unknown()])),
  services: z.array(z.tuple([z.string(), z.array(instance)])),
});

/**
 * The table on disk, for a gateway that starts while Consul is down. Written beside its place and renamed into it, so
 * that there is always a whole one; readable by its owner only, as it shows the network. A disk that fails costs its
 * operator a line and nobody a request.
 */
export function createTableFile(options: TableFileOptions): TableFile {
  const { path, log, intervalMs = INTERVAL_MS, retryMs = RETRY_MS } = options;
  let wanted: (() => SavedTable) | undefined;
  /** What is on disk, as far as we know. */
  let written = '';
  let timer: NodeJS.Timeout | undefined;
  let failing = false;
  let closed = false;

  const write = async (table: SavedTable) => {
    const text = toText(table);
    if (text === written) return;
    await replace(
      path,
      `{"format":"${FORMAT}","version":${VERSION},"answered_at":${table.answeredAt},${text}`,
    );
    written = text;
    if (failing) log(`the table is saved to ${path} again`);
    failing = false;
  };
  const schedule = () => {
    timer ??= setTimeout(() => void run(), failing ? retryMs : intervalMs).unref();
  };
  const run = async () => {
    const read = wanted;
    wanted = undefined;
    try {
      if (read) await write(read());
    } catch (error) {
      if (!failing && !closed)
        log(`the table cannot be saved for a start without Consul: ${(error as Error).message}`);
      failing = true;
      wanted ??= read;
    }
    timer = undefined;
    if (wanted && !closed) schedule();
  };
  return {
    load() {
      try {
        removeAbandoned(path);
        const table = readTable(path);
        written = toText(table);
        return table;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
          log(`the saved table is not used, the next one will replace it: ${(error as Error).message}`);
        return undefined;
      }
    },
    save(read) {
      if (closed) return;
      wanted = read;
      schedule();
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

/** Without its beginning: equal tables have equal texts, whenever they were written. */
function toText({ definitions, services }: SavedTable): string {
  return JSON.stringify({ definitions: [...definitions], services: [...services] }).slice(1);
}

async function replace(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  // Another process may write the same file, in another container even with our process id.
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(text);
      // Otherwise a power cut may leave the new name with nothing in it.
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
}

/** @throws Error that names the file and what is wrong with it */
function readTable(path: string): SavedTable {
  // Not waiting for the other end of what may be a pipe.
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const stats = fstatSync(file);
    const { uid, mode, size } = stats;
    if (!stats.isFile()) throw new Error(`${path} is no regular file`);
    if (size > BYTES_MAX) throw new Error(`${path} has ${size} bytes, more than a table can have`);
    // Who can write it decides where calls go.
    if (uid !== process.getuid?.() && uid !== 0) throw new Error(`${path} belongs to another user (${uid})`);
    if (mode & OTHERS_MAY_WRITE) throw new Error(`${path} can be written by others; chmod 600 it`);
    return parseTable(path, readFileSync(file, 'utf8'));
  } finally {
    closeSync(file);
  }
}

function parseTable(path: string, text: string): SavedTable {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${path} is not JSON (${(error as Error).message})`);
  }
  const begin = header.safeParse(json);
  if (!begin.success) throw new Error(`${path} is not a table of mcp-mesh`);
  if (begin.data.version !== VERSION)
    throw new Error(`${path} has version ${begin.data.version} of the format, this gateway knows ${VERSION}`);
  const { data, error } = content.safeParse(json);
  if (!data) throw new Error(`${path} is damaged at ${z.prettifyError(error)}`);
  return {
    answeredAt: data.answered_at,
    definitions: new Map(data.definitions),
    services: new Map(data.services),
  };
}

function removeAbandoned(path: string): void {
  const folder = dirname(path);
  const ours = new RegExp(`^${RegExp.escape(basename(path))}\\.[0-9a-f]{12}\\.tmp$`);
  for (const name of readdirSync(folder).filter(entry => ours.test(entry))) {
    const file = join(folder, name);
    if (Date.now() - statSync(file).mtimeMs > ABANDONED_MS) rmSync(file, { force: true });
  }
}

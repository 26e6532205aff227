import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { createLimitMemory } from '../mesh/limit-memory.ts';
import { type Consumed, guardWindows, type WindowStore, type WindowUse } from '../mesh/limit-store.ts';
import { createStoreGuard, type OnStoreFailure } from '../mesh/store-guard.ts';

interface QuotaFileOptions {
  path: string;
  /** What to do when the disk is full or the file gone bad while running. */
  onStoreFailure?: OnStoreFailure;
  log(text: string): void;
  /** Called for each decision that was made without the file. */
  onFailure?(): void;
}

/** Workers of this host write to it, for microseconds each. */
const LOCK_WAIT_MS = 250;
/** Ended windows stay for a while: a clock that was set forward and back must not forget a quota. */
const KEEP_ENDED_MS = 7 * 24 * 3_600_000;

const SCHEMA = `create table if not exists windows
  (key text primary key, used integer not null, ends integer not null) strict, without rowid`;

/** Nothing comes back when the use is refused. ?1 key, ?2 cost, ?3 end of a new window, ?4 now, ?5 limit */
const CONSUME = `insert into windows values (?1, ?2, ?3) on conflict (key) do update set
  used = iif(ends > ?4, used, 0) + ?2, ends = iif(ends > ?4, ends, ?3)
  where iif(ends > ?4, used, 0) + ?2 <= ?5 returning used, ends`;

/**
 * Quotas without Redis: an SQLite file (Node's own), which all workers of the host may share. Not a file of ours: at
 * 15 us each, every call is on disk when it is counted, also for the next process after a kill -9, and no number of
 * callers takes memory. Only a power failure can lose the last seconds.
 * @throws Error with the cure when the file cannot be opened or is damaged
 */
export function openQuotaFile({
  path,
  onStoreFailure = 'allow',
  log,
  onFailure = () => {},
}: QuotaFileOptions): WindowStore {
  const { database, consume, read, refund } = open(path);
  const guard = createStoreGuard({ name: `the quota file ${path}`, onStoreFailure, log, onFailure });
  return {
    durable: true,
    ...guardWindows({
      consume: async (key, use) => consumeOf(consume, read, key, use),
      refund: async (key, cost, now) => {
        refund.run(cost, key, now);
      },
      guard,
      memory: createLimitMemory(),
    }),
    async close() {
      guard.close();
      if (database.isOpen) database.close();
    },
  };
}

function consumeOf(consume: StatementSync, read: StatementSync, key: string, use: WindowUse): Consumed {
  const { limit, windowMs, cost, now } = use;
  const counted = cost > limit ? undefined : consume.get(key, cost, Math.ceil(now + windowMs), now, limit);
  if (counted) {
    return { allowed: true, remaining: limit - Number(counted.used), resetMs: Number(counted.ends) - now };
  }
  const kept = read.get(key, now);
  return {
    allowed: false,
    remaining: Math.max(0, limit - Number(kept?.used ?? 0)),
    resetMs: kept ? Number(kept.ends) - now : windowMs,
  };
}

function open(path: string) {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    // Made here for its mode: it tells who called how often.
    closeSync(openSync(path, 'a', 0o600));
    const database = new DatabaseSync(path, { timeout: LOCK_WAIT_MS });
    // NORMAL: consistent after a power failure, and no fsync for each call.
    database.exec('pragma journal_mode = wal; pragma synchronous = normal');
    const [check] = database.prepare('pragma quick_check(1)').all();
    if (check?.quick_check !== 'ok') throw new Error(String(check?.quick_check));
    database.exec(SCHEMA);
    database.prepare('delete from windows where ends < ?').run(Date.now() - KEEP_ENDED_MS);
    return {
      database,
      consume: database.prepare(CONSUME),
      read: database.prepare('select used, ends from windows where key = ? and ends > ?'),
      refund: database.prepare('update windows set used = max(0, used - ?) where key = ? and ends > ?'),
    };
  } catch (cause) {
    const cure =
      'make it writable, or, if it is damaged, move it away: the quotas of this period then start anew';
    throw new Error(`the quota file ${path} cannot be used: ${(cause as Error).message}; ${cure}`, { cause });
  }
}

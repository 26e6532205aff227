import { createHash } from 'node:crypto';
import { createLimitMemory, type LimitMemory } from './limit-memory.ts';
import { createStoreGuard, type OnStoreFailure, type StoreGuard } from './store-guard.ts';

/** One use of a fixed window; all times in ms. */
export interface WindowUse {
  /** Units that one window allows. */
  limit: number;
  windowMs: number;
  /** Units that this use takes (whole). */
  cost: number;
  now: number;
}

export interface Consumed {
  allowed: boolean;
  /** Units left after this use; when refused, those that were too few. */
  remaining: number;
  /** Milliseconds until the window ends. */
  resetMs: number;
}

export interface LeaseTerms {
  /** Leases at once. */
  limit: number;
  /** It ends by itself after this: whoever took it may be gone. */
  ttlMs: number;
  now: number;
}

/** Counters of fixed windows. A window opens with its first use; a refused use takes nothing. */
export interface WindowStore {
  /** Whether the counts outlast this process. */
  readonly durable: boolean;
  /** @throws MeshError `rate_limited` when the store is away and the setting is to refuse then */
  consume(key: string, use: WindowUse): Promise<Consumed>;
  /** Gives back units of the window that is open, as far as the store can be reached. Never throws. */
  refund(key: string, cost: number, now: number): Promise<void>;
  close(): Promise<void>;
}

/** Windows, and leases on a number of places. */
export interface LimitStore extends WindowStore {
  /**
   * Takes a place for the holder of the (unique) id, if one is free.
   * @throws MeshError `rate_limited` when the store is away and the setting is to refuse then
   */
  hold(key: string, id: string, terms: LeaseTerms): Promise<boolean>;
  /** Idempotent; never throws. */
  release(key: string, id: string): Promise<void>;
}

interface LimitStoreOptions {
  /** redis:// or rediss://; undefined: everything is counted in this process alone. */
  redisUrl?: string | undefined;
  onStoreFailure?: OnStoreFailure;
  /** Longest wait for an answer of Redis, in ms; default 250. */
  answerMs?: number;
  log(text: string): void;
  /** Called for each decision that was made without the store. */
  onFailure?(): void;
  /** Windows kept in memory. */
  maxWindows?: number;
}

/** A longer key is replaced by its hash: a caller's name may have any length. */
const KEY_MAX = 200;
const ANSWER_MS = 250;

/**
 * The counters behind rates, quotas and requests in flight: in Redis, shared by all who name the same one, or in
 * memory. The connection is made in the background; while Redis is away, `allow` counts in memory, on from what Redis
 * said last, and `deny` refuses. What is counted in memory meanwhile is not added to Redis later.
 * @throws Error when the URL makes no sense
 */
export function createLimitStore({
  redisUrl,
  onStoreFailure = 'allow',
  answerMs = ANSWER_MS,
  log,
  onFailure = () => {},
  maxWindows,
}: LimitStoreOptions): LimitStore {
  const memory = createLimitMemory(maxWindows === undefined ? {} : { maxWindows });
  if (redisUrl === undefined) return inMemory(memory);
  checkUrl(redisUrl);
  // Its code takes 40 MB: only those who use it pay.
  const loading = import('./limit-redis.ts').then(({ connectRedis }) => connectRedis(redisUrl, answerMs));
  // Whoever uses it hears of it.
  loading.catch(() => {});
  const guard = createStoreGuard({
    name: `Redis at ${new URL(redisUrl).host}`,
    onStoreFailure,
    log,
    onFailure,
  });
  const windows = guardWindows({
    consume: async (key, use) => (await loading).consume(key, use),
    refund: async (key, cost) => (await loading).refund(key, cost),
    guard,
    memory,
  });
  return {
    ...windows,
    durable: true,
    hold: (key, id, terms) =>
      guard.run(
        async () => {
          const held = await (await loading).hold(key, id, terms);
          // Known here, too, for when Redis goes.
          if (held) memory.hold(key, id, { ...terms, limit: Number.POSITIVE_INFINITY });
          return held;
        },
        () => memory.hold(key, id, terms),
      ),
    async release(key, id) {
      memory.release(key, id);
      await guard.attempt(async () => (await loading).release(key, id));
    },
    async close() {
      guard.close();
      await loading.then(
        redis => redis.close(),
        () => {},
      );
    },
  };
}

/** The parts as one key that no other parts can make. */
export function limitKey(...parts: (string | number)[]): string {
  const key = JSON.stringify(parts);
  return key.length <= KEY_MAX ? key : createHash('sha256').update(key).digest('base64url');
}

interface GuardedWindows {
  consume(key: string, use: WindowUse): Promise<Consumed>;
  refund(key: string, cost: number, now: number): Promise<void>;
  guard: StoreGuard;
  memory: LimitMemory;
}

/** Windows kept elsewhere, with memory for the time when that fails. */
export function guardWindows({
  consume,
  refund,
  guard,
  memory,
}: GuardedWindows): Pick<WindowStore, 'consume' | 'refund'> {
  return {
    consume: (key, use) =>
      guard.run(
        async () => {
          const consumed = await consume(key, use);
          memory.note(key, use, consumed);
          return consumed;
        },
        () => memory.consume(key, use),
      ),
    async refund(key, cost, now) {
      memory.refund(key, cost, now);
      await guard.attempt(() => refund(key, cost, now));
    },
  };
}

function inMemory(memory: LimitMemory): LimitStore {
  return {
    durable: false,
    consume: async (key, use) => memory.consume(key, use),
    refund: async (key, cost, now) => memory.refund(key, cost, now),
    hold: async (key, id, terms) => memory.hold(key, id, terms),
    release: async (key, id) => memory.release(key, id),
    close: async () => {},
  };
}

function checkUrl(url: string): void {
  if (/^rediss?:$/.test(URL.parse(url)?.protocol ?? '') && URL.parse(url)?.hostname) return;
  // Not the text itself: it may hold a password.
  throw new Error(
    'MESH_REDIS_URL is no Redis URL; write redis://host:6379 or, with TLS, rediss://user:password@host:6379',
  );
}

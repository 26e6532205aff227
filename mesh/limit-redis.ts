import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import { createClient } from 'redis';
import type { Consumed, LeaseTerms, WindowUse } from './limit-store.ts';

export interface RedisLimits {
  consume(key: string, use: WindowUse): Promise<Consumed>;
  refund(key: string, cost: number): Promise<void>;
  hold(key: string, id: string, terms: LeaseTerms): Promise<boolean>;
  release(key: string, id: string): Promise<void>;
  close(): void;
}

const PREFIX = 'mcp-mesh:limit';
/** How long commands wait for the first connection; later they fail at once without one. */
const CONNECT_MS = 1000;
/** No answer for so long: the peer may be gone without a word, and TCP alone would find out in 15 minutes. */
const SILENT_MS = 2000;
const RECONNECT_MAX_MS = 1000;
/** Policies have a handful of limits; a limiter keeps nothing of its own. */
const LIMITERS_MAX = 1000;

/**
 * In place of the library's script, which counts refused uses, too. KEYS: window. ARGV: cost (below 0 gives back),
 * seconds, limit. A refused use is told by a sum beyond the limit that is not stored.
 */
const CONSUME = `
local used = tonumber(redis.call('get', KEYS[1]) or 0)
local cost = math.max(tonumber(ARGV[1]), -used)
local ttl = redis.call('pttl', KEYS[1])
if used + cost > tonumber(ARGV[3]) and cost > 0 then
  return {used + cost, ttl < 0 and ARGV[2] * 1000 or ttl}
end
if ttl < 0 then
  if cost > 0 then redis.call('set', KEYS[1], cost, 'EX', ARGV[2]) end
  return {cost, ARGV[2] * 1000}
end
return {redis.call('incrby', KEYS[1], cost), ttl}`;

/** KEYS: sorted set of holders by the end of their lease, by Redis's own clock. ARGV: limit, ttl in ms, holder. */
const HOLD = `
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('zremrangebyscore', KEYS[1], '-inf', now)
if redis.call('zcard', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('zadd', KEYS[1], now + ARGV[2], ARGV[3])
if redis.call('pttl', KEYS[1]) < tonumber(ARGV[2]) then redis.call('pexpire', KEYS[1], ARGV[2]) end
return 1`;

/**
 * Windows and leases in Redis >= 5, one round trip each. It connects in the background and for ever; a command fails
 * at once while there is no connection, and after `answerMs` without an answer. Times are Redis's: gateways whose clocks
 * differ share a window all the same. Windows are whole seconds.
 */
export function connectRedis(url: string, answerMs: number): RedisLimits {
  let link = openLink(url);
  let silentSince: number | undefined;
  let closed = false;

  /** @throws Error that says why there is no answer */
  const ask = async <T>(command: (link: Link) => Promise<T>): Promise<T> => {
    const used = link;
    try {
      await used.tried;
      const answer = await within(answerMs, command(used));
      silentSince = undefined;
      return answer;
    } catch (fault) {
      // Not an error: the answer of the limiter is no.
      if (fault instanceof RateLimiterRes) silentSince = undefined;
      else renewWhenSilent();
      if (fault instanceof RateLimiterRes || fault instanceof NoAnswer) throw fault;
      throw new Error((!used.client.isReady && used.fault) || (fault as Error).message, { cause: fault });
    }
  };
  const renewWhenSilent = () => {
    silentSince ??= performance.now();
    if (closed || performance.now() - silentSince < SILENT_MS) return;
    silentSince = undefined;
    link.close();
    link = openLink(url);
  };

  return {
    async consume(key, { limit, windowMs, cost }) {
      const customDuration = Math.max(1, Math.ceil(windowMs / 1000));
      try {
        const took = await ask(({ limiter }) => limiter(limit).consume(key, cost, { customDuration }));
        return { allowed: true, remaining: took.remainingPoints, resetMs: took.msBeforeNext };
      } catch (refused) {
        if (!(refused instanceof RateLimiterRes)) throw refused;
        const remaining = Math.max(0, limit - (refused.consumedPoints - cost));
        return { allowed: false, remaining, resetMs: refused.msBeforeNext };
      }
    },
    async refund(key, cost) {
      await ask(({ limiter }) => limiter(1).reward(key, cost));
    },
    async hold(key, id, { limit, ttlMs }) {
      const args = { keys: [leaseKey(key)], arguments: [String(limit), String(Math.ceil(ttlMs)), id] };
      return (await ask(({ client }) => client.eval(HOLD, args))) === 1;
    },
    async release(key, id) {
      await ask(({ client }) => client.zRem(leaseKey(key), id));
    },
    close() {
      closed = true;
      link.close();
    },
  };
}

type Link = ReturnType<typeof openLink>;

function openLink(url: string) {
  const client = createClient({
    url,
    disableOfflineQueue: true,
    socket: {
      connectTimeout: CONNECT_MS,
      reconnectStrategy: tries => Math.min(50 * 2 ** tries, RECONNECT_MAX_MS) * (0.5 + Math.random() / 2),
    },
  });
  const limiters = new Map<number, RateLimiterRedis>();
  const { promise: tried, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, CONNECT_MS);
  const settle = () => {
    clearTimeout(timer);
    resolve();
  };
  const link = {
    client,
    /** The first attempt has ended, one way or the other, or takes too long. */
    tried,
    /** Why there is no connection. */
    fault: undefined as string | undefined,
    limiter(points: number): RateLimiterRedis {
      const known = limiters.get(points);
      if (known) return known;
      if (limiters.size >= LIMITERS_MAX) limiters.clear();
      const made = new RateLimiterRedis({
        storeClient: client,
        useRedisPackage: true,
        keyPrefix: PREFIX,
        points,
        duration: 1,
        customIncrTtlLuaScript: CONSUME,
      });
      limiters.set(points, made);
      return made;
    },
    close() {
      settle();
      if (client.isOpen) client.destroy();
    },
  };
  client.on('error', (error: Error) => {
    link.fault = error.message || String((error as NodeJS.ErrnoException).code ?? error.name);
    settle();
  });
  client.on('ready', () => {
    link.fault = undefined;
    settle();
  });
  // It tries for ever, and 'error' tells; what rejects here is a client that was closed meanwhile.
  client.connect().catch(settle);
  return link;
}

function leaseKey(key: string): string {
  return `${PREFIX}:${key}`;
}

class NoAnswer extends Error {}

async function within<T>(ms: number, answer: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const late = () => reject(new NoAnswer(`no answer within ${ms} ms`));
  // After a stall of our own the answer may be here, unread: sockets are read before the immediate runs.
  const timer = setTimeout(() => setImmediate(late), ms);
  try {
    return await Promise.race([answer, promise]);
  } finally {
    clearTimeout(timer);
  }
}

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { createClient } from 'redis';
import { MeshError } from '../../mesh/errors.ts';
import { createLimitMemory } from '../../mesh/limit-memory.ts';
import { createLimitStore, limitKey } from '../../mesh/limit-store.ts';
import { skipWithoutRedis, startRealRedis } from '../real-redis.ts';
import { until } from '../until.ts';

const skip = skipWithoutRedis();
const DAY = 86_400_000;
/** Where the question is not what happens without an answer: a busy machine may take its time. */
const PATIENT = { answerMs: 30_000 };

function use({ limit = 10, windowMs = 60_000, cost = 1, now = 0 } = {}) {
  return { limit, windowMs, cost, now };
}

test('a window of 31 days opens with its first use and ends 31 days later, to the millisecond', () => {
  const memory = createLimitMemory();
  const month = { limit: 3, windowMs: 31 * DAY };
  const start = Date.UTC(2027, 0, 1);
  assert.equal(memory.consume('a', use({ ...month, cost: 3, now: start })).allowed, true);
  const last = memory.consume('a', use({ ...month, now: start + 31 * DAY - 1 }));
  assert.deepEqual(last, { allowed: false, remaining: 0, resetMs: 1 });
  const next = memory.consume('a', use({ ...month, now: start + 31 * DAY }));
  assert.deepEqual(next, { allowed: true, remaining: 2, resetMs: 31 * DAY });
});

test('any order of uses and refunds counts as a plain model says, whatever the clock does', () => {
  const step = fc.record({
    key: fc.constantFrom('a', 'b'),
    cost: fc.integer({ min: 0, max: 4 }),
    refund: fc.boolean(),
    ahead: fc.integer({ min: 0, max: 700 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => {
      const memory = createLimitMemory();
      const model = new Map<string, { used: number; ends: number }>();
      let now = 5;
      for (const { key, cost, refund, ahead } of steps) {
        now += ahead;
        const kept = model.get(key);
        const window = kept && now < kept.ends ? kept : { used: 0, ends: now + 1000 };
        if (refund) {
          memory.refund(key, cost, now);
          window.used = Math.max(0, window.used - cost);
          continue;
        }
        const allowed = window.used + cost <= 6;
        if (allowed) model.set(key, window);
        if (allowed) window.used += cost;
        const expected = { allowed, remaining: 6 - window.used, resetMs: window.ends - now };
        assert.deepEqual(memory.consume(key, { limit: 6, windowMs: 1000, cost, now }), expected);
      }
    }),
  );
});

test('a clock that is set back neither opens a new window nor makes this one longer than a window', () => {
  const memory = createLimitMemory();
  memory.consume('a', use({ cost: 10, now: 30 * DAY }));
  const after = memory.consume('a', use({ now: 10 * DAY }));
  assert.deepEqual(after, { allowed: false, remaining: 0, resetMs: 60_000 });
  assert.equal(memory.consume('a', use({ now: 10 * DAY + 60_000 })).allowed, true);
  assert.equal(memory.hold('l', '1', { limit: 1, ttlMs: 1000, now: 30 * DAY }), true);
  assert.equal(memory.hold('l', '2', { limit: 1, ttlMs: 1000, now: 10 * DAY }), false);
  assert.equal(memory.hold('l', '2', { limit: 1, ttlMs: 1000, now: 10 * DAY + 1000 }), true);
});

test('beyond its bound memory forgets the rates used longest ago, and no quota', () => {
  const memory = createLimitMemory({ maxWindows: 100 });
  const quota = { limit: 5, windowMs: DAY };
  memory.consume('quota', use({ ...quota, cost: 4 }));
  for (let i = 0; i < 10_000; i += 1) {
    memory.consume(`rate-${i}`, use());
    memory.consume('busy', use({ limit: 20_000 }));
  }
  assert.equal(memory.consume('quota', use(quota)).remaining, 0);
  assert.equal(memory.consume('busy', use({ limit: 20_000 })).remaining, 9999);
  assert.equal(memory.consume('rate-9999', use()).remaining, 8);
  assert.equal(memory.consume('rate-0', use()).remaining, 9);
});

test('leases that nobody gives back end by themselves, behind longer ones, too', () => {
  const memory = createLimitMemory();
  assert.equal(memory.hold('a', 'long', { limit: 2, ttlMs: 10_000, now: 0 }), true);
  assert.equal(memory.hold('a', 'short', { limit: 2, ttlMs: 100, now: 0 }), true);
  assert.equal(memory.hold('a', 'third', { limit: 2, ttlMs: 10_000, now: 99 }), false);
  assert.equal(memory.hold('a', 'third', { limit: 2, ttlMs: 10_000, now: 100 }), true);
  assert.equal(memory.hold('a', 'fourth', { limit: 2, ttlMs: 10_000, now: 101 }), false);
  memory.release('a', 'long');
  memory.release('a', 'long');
  assert.equal(memory.hold('a', 'fourth', { limit: 2, ttlMs: 10_000, now: 101 }), true);
  assert.equal(memory.hold('a', 'fifth', { limit: 2, ttlMs: 10_000, now: 101 }), false);
});

test('no caller can choose names that make the key of another', () => {
  const keys = [
    limitKey('rate', 60, 'a', 'key:b'),
    limitKey('rate', 60, 'a:key', 'b'),
    limitKey('rate', 60, 'a","key:b'),
    limitKey('rate', '60', 'a', 'key:b'),
    limitKey('rate', 60, 'a', `key:b${'x'.repeat(500)}`),
    limitKey('rate', 60, 'a', `key:b${'x'.repeat(501)}`),
  ];
  assert.equal(new Set(keys).size, keys.length);
  assert.ok(keys.every(key => key.length <= 200));
});

test('a URL that makes no sense is refused at the start, without telling its password', () => {
  for (const redisUrl of ['localhost:6379', 'http://user:hunter2@host', 'redis://', ':hunter2@host']) {
    assert.throws(
      () => createLimitStore({ redisUrl, log: () => {} }),
      (error: Error) => /MESH_REDIS_URL/.test(error.message) && !error.message.includes('hunter2'),
    );
  }
});

test('Redis: a refused use takes nothing, a refund never goes below zero', { skip }, async t => {
  const { store } = await openStore(t, PATIENT);
  const steps = [2, 2, 2, 1, 1].map(cost => store.consume('a', use({ limit: 5, cost })));
  const answers = (await Promise.all(steps)).map(({ allowed, remaining }) => [allowed, remaining]);
  assert.deepEqual(answers, [
    [true, 3],
    [true, 1],
    [false, 1],
    [true, 0],
    [false, 0],
  ]);
  assert.deepEqual(await store.consume('large', use({ limit: 5, cost: 6 })), {
    allowed: false,
    remaining: 5,
    resetMs: 60_000,
  });
  await store.refund('a', 2, 0);
  assert.equal((await store.consume('a', use({ limit: 5 }))).remaining, 1);
  await store.refund('a', 50, 0);
  await store.refund('never used', 50, 0);
  assert.equal((await store.consume('a', use({ limit: 5, cost: 5 }))).remaining, 0);
  assert.equal((await store.consume('never used', use({ limit: 5 }))).remaining, 4);
});

test('Redis: two stores share a limit exactly, however they race', { skip }, async t => {
  const { store, redis } = await openStore(t, PATIENT);
  const { store: other } = await openStore(t, { redis, ...PATIENT });
  const all = await Promise.all(
    Array.from({ length: 800 }, () =>
      [store, other].map(one => one.consume('a', use({ limit: 1000 }))),
    ).flat(),
  );
  assert.equal(all.filter(({ allowed }) => allowed).length, 1000);
});

test('Redis: a window ends by its own clock, one of 31 days after 31 days', { skip }, async t => {
  const { store, redis } = await openStore(t, PATIENT);
  const before = Date.now();
  await store.consume('month', use({ windowMs: 31 * DAY }));
  const client = await openClient(t, redis.url);
  const [key = ''] = await client.keys('*month');
  const ends = await client.pExpireTime(key);
  assert.ok(ends > before + 31 * DAY - 1000 && ends <= Date.now() + 31 * DAY, new Date(ends).toISOString());
  await store.consume('short', use({ limit: 1, windowMs: 1000 }));
  assert.equal((await store.consume('short', use({ limit: 1, windowMs: 1000 }))).allowed, false);
  await until(async () => (await store.consume('short', use({ limit: 1, windowMs: 1000 }))).allowed);
});

test('Redis: leases are shared, given back once, and end by themselves', { skip }, async t => {
  const { store, redis } = await openStore(t, PATIENT);
  const { store: other } = await openStore(t, { redis, ...PATIENT });
  const terms = { limit: 2, ttlMs: 60_000, now: 0 };
  assert.equal(await store.hold('a', '1', terms), true);
  assert.equal(await other.hold('a', '2', terms), true);
  assert.equal(await other.hold('a', '3', terms), false);
  await store.release('a', '1');
  await store.release('a', '1');
  assert.equal(await other.hold('a', '3', terms), true);
  assert.equal(await store.hold('a', '4', terms), false);
  assert.equal(await store.hold('b', 'kept', terms), true);
  assert.equal(await store.hold('b', 'lost', { ...terms, ttlMs: 1000 }), true);
  assert.equal(await store.hold('b', 'next', terms), false);
  await until(() => store.hold('b', 'next', terms));
});

test('Redis killed: memory counts on from what it said last, one log line each way, and it recovers', {
  skip,
}, async t => {
  const { store, redis, log, failures } = await openStore(t);
  assert.equal((await store.consume('a', use({ cost: 7 }))).remaining, 3);
  assert.equal(await store.hold('l', 'mine', { limit: 1, ttlMs: 60_000, now: 0 }), true);
  await redis.close();
  assert.equal((await store.consume('a', use({ cost: 2, now: 5 }))).remaining, 1);
  assert.equal((await store.consume('a', use({ cost: 2, now: 5 }))).allowed, false);
  assert.equal(await store.hold('l', 'other', { limit: 1, ttlMs: 60_000, now: 0 }), false);
  await store.release('l', 'mine');
  assert.equal(await store.hold('l', 'other', { limit: 1, ttlMs: 60_000, now: 0 }), true);
  assert.equal(failures(), 4);
  assert.equal(log.length, 1, log.join('\n'));
  assert.match(log[0] ?? '', /^Redis at 127\.0\.0\.1:\d+ cannot be used: .*(ECONNREFUSED|ECONNRESET|closed)/);

  const again = await startRealRedis({ port: redis.port });
  t.after(again.close);
  const client = await openClient(t, again.url);
  await until(async () => {
    await store.consume('b', use({ limit: 1000 }));
    return (await client.keys('*:b')).length > 0;
  });
  assert.match(log[1] ?? '', /answers again/);
  assert.equal(log.length, 2, log.join('\n'));
});

test('Redis killed, and the setting is to refuse: limited requests are refused until it is back', {
  skip,
}, async t => {
  const { store, redis, failures } = await openStore(t, { onStoreFailure: 'deny' });
  assert.equal((await store.consume('a', use())).allowed, true);
  await redis.close();
  const error = await store.consume('a', use()).catch((fault: unknown) => fault);
  assert.ok(error instanceof MeshError);
  assert.deepEqual([error.code, error.delivered], ['rate_limited', 'no']);
  assert.ok((error.retryAfterMs ?? 0) > 0);
  await assert.rejects(store.hold('l', '1', { limit: 1, ttlMs: 1000, now: 0 }), MeshError);
  await store.refund('a', 1, 0);
  await store.release('l', '1');
  assert.equal(failures(), 2);
  const again = await startRealRedis({ port: redis.port });
  t.after(again.close);
  await until(async () => (await store.consume('a', use()).catch(() => undefined))?.allowed === true);
});

test('Redis that hangs holds up a few requests for its time-out, and is used again when it wakes', {
  skip,
}, async t => {
  const { store, redis, log } = await openStore(t);
  await store.consume('a', use());
  process.kill(redis.pid, 'SIGSTOP');
  assert.equal((await store.consume('a', use())).remaining, 8);
  assert.match(log[0] ?? '', /no answer within 250 ms/);
  process.kill(redis.pid, 'SIGCONT');
  await until(async () => {
    await store.consume('a', use({ limit: 1000 }));
    return log.length === 2;
  });
});

test('Redis that takes the connection and never answers is asked again by a new one', { skip }, async t => {
  const redis = await startRealRedis();
  t.after(redis.close);
  process.kill(redis.pid, 'SIGSTOP');
  const { store, log } = await openStore(t, { redis });
  assert.equal((await store.consume('a', use())).remaining, 9);
  assert.match(log[0] ?? '', /cannot be used/);
  process.kill(redis.pid, 'SIGCONT');
  await until(async () => {
    await store.consume('a', use({ limit: 1000 }));
    return log.length === 2;
  });
});

test('a connection whose other end is gone without a word is given up for a new one', { skip }, async t => {
  const redis = await startRealRedis();
  t.after(redis.close);
  const proxy = await startProxy(t, redis.port);
  const { store, log } = await openStore(t, { redis: { ...redis, url: proxy.url } });
  await store.consume('a', use());
  proxy.forgetConnections();
  await store.consume('a', use());
  assert.match(log[0] ?? '', /cannot be used/);
  await until(async () => {
    await store.consume('a', use({ limit: 1000 }));
    return log.length === 2;
  });
});

test('Redis that was never there: every answer comes from memory', async t => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await once(server.close(), 'close');
  const log: string[] = [];
  const store = createLimitStore({
    redisUrl: `redis://:hunter2@127.0.0.1:${port}`,
    log: text => log.push(text),
  });
  t.after(store.close);
  for (const allowed of [true, true, false])
    assert.equal((await store.consume('a', use({ limit: 2 }))).allowed, allowed);
  assert.equal(log.length, 1);
  assert.match(log[0] ?? '', /ECONNREFUSED/);
  assert.doesNotMatch(log[0] ?? '', /hunter2/);
});

async function openClient(t: TestContext, url: string) {
  // The server may be closed before it.
  const client = createClient({ url }).on('error', () => {});
  t.after(() => client.destroy());
  return client.connect();
}

interface Opened {
  redis?: Awaited<ReturnType<typeof startRealRedis>>;
  onStoreFailure?: 'allow' | 'deny';
  answerMs?: number;
}

async function openStore(t: TestContext, { redis, ...options }: Opened = {}) {
  const server = redis ?? (await startRealRedis());
  if (!redis) t.after(server.close);
  const log: string[] = [];
  let failures = 0;
  const store = createLimitStore({
    redisUrl: server.url,
    ...options,
    log: text => log.push(text),
    onFailure: () => (failures += 1),
  });
  t.after(store.close);
  return { store, redis: server, log, failures: () => failures };
}

/** A way to Redis that can lose its connections as a vanished host does: nothing comes, nothing is closed. */
async function startProxy(t: TestContext, port: number) {
  let pairs: [Socket, Socket][] = [];
  const all = new Set<Socket>();
  const server = createServer(inner => {
    const outer = createConnection({ host: '127.0.0.1', port });
    for (const socket of [inner, outer]) all.add(socket.on('error', () => {}));
    inner.pipe(outer).pipe(inner);
    pairs.push([inner, outer]);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of all) socket.destroy();
    server.close();
  });
  return {
    url: `redis://127.0.0.1:${(server.address() as { port: number }).port}`,
    forgetConnections() {
      for (const [inner, outer] of pairs) {
        inner.unpipe(outer);
        outer.unpipe(inner);
        inner.resume();
      }
      pairs = [];
    },
  };
}

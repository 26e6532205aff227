import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { RateLimiterMemory } from 'rate-limiter-flexible';
import { createLimits } from '../../kong-plugin/limits.ts';
import { createAuditLog } from '../../mesh/audit-log.ts';
import { createLimitMemory } from '../../mesh/limit-memory.ts';
import { createLimitStore, limitKey, type WindowStore } from '../../mesh/limit-store.ts';
import { openQuotaFile } from '../../workers/quota-file.ts';
import { findRedis, startRealRedis } from '../real-redis.ts';

/** Memory of 100,000 active pairs of principal and service (bar: 100 MB), and the time of one check, by store. */

const PAIRS = 100_000;
const CHECKS = 20_000;
const DAY = 86_400_000;

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');
const ignore = () => {};
const principal = (i: number) => `jwt:https://idp.example.com/realms/main#${i}-5f2d7c1e-user`;

console.log(`Node ${process.version}; ${PAIRS} pairs of principal and service`);
const library = await megabytes(async () => {
  const limiter = new RateLimiterMemory({ points: 600, duration: 60 });
  for (let i = 0; i < PAIRS; i += 1) await limiter.consume(limitKey('rate', 60, 'github', principal(i)));
  return {
    limiter,
    close: () =>
      Promise.all(
        Array.from({ length: PAIRS }, (_, i) => limiter.delete(limitKey('rate', 60, 'github', principal(i)))),
      ),
  };
});
console.log(`rates, the library's memory store             ${library} MB`);
const rates = await megabytes(async () => fill(['rate']));
console.log(`rates, ours                                   ${rates} MB`);
const all = await megabytes(async () => fill(['rate', 'quota', 'in-flight']));
console.log(`rates, quotas and one request in flight each  ${all} MB`);
const flooded = await megabytes(async () => fill(['rate', 'quota'], 10 * PAIRS));
console.log(`rates and quotas after ${10 * PAIRS} pairs, the oldest gone ${flooded} MB`);

console.log(`\nmicroseconds for one check, one after the other, mean of ${CHECKS}`);
await time('memory', createLimitStore({ log: ignore }));
const folder = mkdtempSync(join(tmpdir(), 'mesh-bench-'));
await time('file', openQuotaFile({ path: join(folder, 'quotas.db'), log: ignore }));
if (findRedis().binary) {
  const redis = await startRealRedis();
  const store = createLimitStore({ redisUrl: redis.url, log: text => console.log(text) });
  await time('redis', store);
  await redis.close();
} else console.log('redis: none here (.ci/install-debian)');
await timeEnter();
await timeAudit();
rmSync(folder, { recursive: true });

function fill(kinds: string[], pairs = PAIRS) {
  const memory = createLimitMemory();
  for (let i = 0; i < pairs; i += 1) {
    const key = (kind: string) => limitKey(kind, 60, 'github', principal(i));
    const use = { limit: 600, cost: 1, now: 0 };
    if (kinds.includes('rate')) memory.consume(key('rate'), { ...use, windowMs: 60_000 });
    if (kinds.includes('quota')) memory.consume(key('quota'), { ...use, windowMs: 31 * DAY });
    if (kinds.includes('in-flight'))
      memory.hold(key('in-flight'), `id${i}`, { limit: 20, ttlMs: 60_000, now: 0 });
  }
  return { memory, close: async () => {} };
}

async function megabytes(make: () => Promise<{ close(): Promise<unknown> }>): Promise<string> {
  gc();
  const before = process.memoryUsage().heapUsed + process.memoryUsage().external;
  const made = await make();
  gc();
  const after = process.memoryUsage().heapUsed + process.memoryUsage().external;
  await made.close();
  return ((after - before) / 1e6).toFixed(1).padStart(6);
}

async function time(name: string, store: WindowStore): Promise<void> {
  const run = async (checks: number) => {
    for (let i = 0; i < checks; i += 1) {
      const use = { limit: 1e9, windowMs: 60_000, cost: 1, now: 0 };
      await store.consume(limitKey('rate', 60, 'github', principal(i % 1000)), use);
    }
  };
  await report(name, run);
  await store.close();
}

async function timeEnter(): Promise<void> {
  const { enter, leave } = createLimits({ store: createLimitStore({ log: ignore }) });
  const limits = { rate: { requests: 1e9, windowS: 60 }, inFlight: 20 };
  await report('enter + leave, memory', async checks => {
    for (let i = 0; i < checks; i += 1) {
      const lease = `call ${i}`;
      await enter({ principal: principal(i % 1000), service: 'github', limits, lease, ttlMs: 60_000 });
      leave(lease);
    }
  });
}

async function timeAudit(): Promise<void> {
  const audit = createAuditLog({ path: join(folder, 'audit.jsonl'), log: ignore, maxPendingBytes: 1e9 });
  await report('audit line', async checks => {
    for (let i = 0; i < checks; i += 1) {
      audit.write({
        time: new Date().toISOString(),
        call_id: `call ${i}`,
        principal: principal(i),
        service: 'github',
        tool: 'get_issue',
        instance: 'mcp-github-host-11100',
        outcome: 'ok',
        latency_ms: 12.5,
        bytes: 1234,
        arguments_sha256: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
      });
    }
  });
  await audit.close();
}

async function report(name: string, run: (times: number) => Promise<void>): Promise<void> {
  await run(CHECKS / 4);
  const start = performance.now();
  await run(CHECKS);
  console.log(`${name.padEnd(24)} ${(((performance.now() - start) * 1000) / CHECKS).toFixed(1).padStart(7)}`);
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RestartPolicy } from '../../../workers/fleet/restart-policy.ts';

const TIMES = { restartFirstMs: 500, sustainedMs: 60_000, parkedMs: 300_000 };
const CRASH = { listened: true, uptimeMs: 1000, killed: false };
const CANNOT_START = { listened: false, uptimeMs: 100, killed: false };

function about(ms: number): (waitMs: number | undefined) => void {
  return waitMs => assert.ok(waitMs !== undefined && waitMs >= ms * 0.75 && waitMs <= ms * 1.25, `${waitMs}`);
}

test('waits double from half a second to half a minute, with jitter', () => {
  const policy = new RestartPolicy(TIMES);
  const waits = Array.from({ length: 9 }, () => policy.judge(CRASH).waitMs);
  const expected = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000];
  for (const [index, ms] of expected.entries()) about(ms)(waits[index]);
  assert.ok(new Set(waits).size > 7, 'no two workers come back in step');
});

test('a sustained run starts anew with the shortest wait', () => {
  const policy = new RestartPolicy(TIMES);
  for (let i = 0; i < 5; i += 1) policy.judge(CRASH);
  about(500)(policy.judge({ ...CRASH, uptimeMs: 60_000 }).waitMs);
  about(1000)(policy.judge(CRASH).waitMs);
});

test('one that ends five times before it listens is parked, which is news once', () => {
  const policy = new RestartPolicy(TIMES);
  const verdicts = Array.from({ length: 7 }, () => policy.judge(CANNOT_START));
  assert.deepEqual(
    verdicts.map(({ parked, news }) => [parked, news]),
    [...Array.from({ length: 4 }, () => [false, false]), [true, true], [true, false], [true, false]],
  );
  about(300_000)(verdicts[6]?.waitMs);
  assert.equal(policy.judge(CRASH).parked, false, 'it has listened');
});

test('one that somebody kills, or that crashes later, is never parked', () => {
  for (const attempt of [CRASH, { ...CANNOT_START, killed: true }]) {
    const policy = new RestartPolicy(TIMES);
    for (let i = 0; i < 20; i += 1) assert.equal(policy.judge(attempt).parked, false);
  }
});

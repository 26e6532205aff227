import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type AdaptiveLimit, createAdaptiveLimit } from '../../workers/adaptive-limit.ts';
import { seeded } from '../seeded.ts';

const CALL_MS = 5;
const DEMAND = 64;
const NONE = Number.POSITIVE_INFINITY;

interface Server {
  /** Calls that it works on at once; the others wait in it. */
  places: number;
  /** Factor of a call's time. */
  vary?: () => number;
  /** Factor of everything's time. */
  slowness?: number;
}

/** A limit with a clock of its own, and a server in place of numbers: 64 calls under way, one in twenty by `modest`. */
function setUp(modest = 'modest') {
  let now = 0;
  const limit = createAdaptiveLimit({ max: 256, now: () => now });
  /** Runs so many calls; how many of them ran with fewer than all 64 inside. */
  const run = ({ places, vary = () => 1, slowness = 1 }: Server, calls: number): number => {
    let held = 0;
    for (let i = 0; i < calls; i += 1) {
      const crowd = Math.min(DEMAND, limit.value);
      if (crowd < DEMAND) held += 1;
      const working = Math.min(crowd, places);
      now += (CALL_MS * slowness) / working;
      const ms = (CALL_MS * slowness * vary() * crowd) / working;
      limit.ended({ principal: i % 20 === 0 ? modest : 'greedy', ms, crowd, pressed: crowd < DEMAND });
    }
    return held;
  };
  const wait = (ms: number) => {
    now += ms;
  };
  return { limit, run, wait };
}

/** Times that vary as much as their mean (exponential). */
const varying = (seed: number) => {
  const random = seeded(seed);
  return () => -Math.log(1 - random());
};

describe('the limit is what the server works on at once', () => {
  for (const places of [1, 4, 16]) {
    test(`${places}`, () => {
      const { limit, run } = setUp();
      run({ places }, 1000);
      assert.equal(limit.value, places);
    });
  }

  test('none, when that is more than there are', () => {
    const { limit, run } = setUp();
    run({ places: NONE }, 1000);
    assert.equal(limit.value, NONE);
  });
});

test('times that vary by themselves rarely mislead it', () => {
  const limits = Array.from({ length: 200 }, (_, seed) => {
    const { limit, run } = setUp();
    run({ places: NONE, vary: varying(seed) }, 1000);
    return limit.value;
  });
  const misled = limits.filter(value => value < NONE).length;
  assert.ok(misled <= 20, `${misled} of 200`);
});

test('nor does a machine that is slow for a moment, for long', () => {
  for (const places of [1, 4, NONE]) {
    const { limit, run } = setUp();
    const random = seeded(11);
    let rightly = 0;
    for (let mood = 0; mood < 500; mood += 1) {
      const slowness = random() < 0.6 ? 1 : 1 + 4 * random();
      run({ places, slowness }, 60 * Math.min(places, DEMAND));
      if (Math.min(limit.value, DEMAND) === Math.min(places, DEMAND)) rightly += 1;
    }
    assert.ok(rightly >= 350, `${places} places: ${rightly} of 500 times`);
  }
});

test('one caller alone is never held back', () => {
  const { limit, run } = setUp('greedy');
  run({ places: 1 }, 1000);
  assert.equal(limit.value, NONE);
});

test('nor is one whose neighbours are long gone, but it is when they return', () => {
  const { limit, run, wait } = setUp();
  run({ places: 1 }, 1000);
  wait(3_600_000);
  assert.equal(limit.value, NONE);
  limit.ended({ principal: 'modest', ms: CALL_MS, crowd: 1, pressed: false });
  assert.equal(limit.value, 1);
});

test('a server that becomes quicker gets more again', () => {
  const { limit, run } = setUp();
  run({ places: 1 }, 1000);
  for (let minute = 0; minute < 5; minute += 1) run({ places: NONE }, 60_000);
  assert.ok(limit.value >= DEMAND, String(limit.value));
});

test('trying costs a server that is not full next to nothing', () => {
  const { run } = setUp();
  const calls = 2_000_000;
  const held = run({ places: NONE, vary: varying(7) }, calls);
  assert.ok(held > 0, 'it never tried');
  assert.ok(held <= calls * 0.05, `${held} of ${calls} calls were held back`);
});

test('a trial is given up when its callers leave', () => {
  const { limit } = setUp();
  const run = (principal: string, calls: number) => endCalls(limit, principal, calls);
  run('modest', 1);
  run('greedy', 20);
  assert.equal(limit.value, 32);
  run('other', 100);
  assert.equal(limit.value, NONE);
});

function endCalls(limit: AdaptiveLimit, principal: string, calls: number): void {
  for (let i = 0; i < calls; i += 1) {
    const crowd = Math.min(DEMAND, limit.value);
    limit.ended({ principal, ms: CALL_MS, crowd, pressed: true });
  }
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Scaler } from '../../../workers/fleet/scaler.ts';

const OPTIONS = { min: 1, max: 8, target: 4, upMs: 2000, downMs: 60_000 };

/** A second after the other: the calls there are, and how many instances there are to be after each. */
function play(calls: readonly number[], options: Partial<typeof OPTIONS> = {}, start = 1): number[] {
  const scaler = new Scaler({ ...OPTIONS, ...options });
  let current = start;
  return calls.map((count, second) => {
    current = scaler.next({ now: second * 1000, calls: count, current });
    return current;
  });
}

const seconds = (count: number, calls: number) => Array.from({ length: count }, () => calls);

test('as many as the calls need, at once, when they needed them for two seconds', () => {
  assert.deepEqual(play([18, 18, 18, 18]), [1, 1, 5, 5]);
  assert.deepEqual(play([4, 4, 4, 4]), [1, 1, 1, 1], 'target calls are what one is for');
});

test('a burst that is over within moments starts nothing; of a rising load, the lowest counts', () => {
  assert.deepEqual(play([40, 2, 40, 2, 40, 2]), [1, 1, 1, 1, 1, 1]);
  assert.deepEqual(play([9, 20, 20]), [1, 1, 5]);
  assert.deepEqual(play([20, 9, 9, 9]), [1, 1, 3, 3]);
});

test('never more than max, nor fewer than min', () => {
  assert.equal(play(seconds(5, 1000)).at(-1), 8);
  assert.equal(play(seconds(300, 0), { min: 2 }, 5).at(-1), 2);
});

test('fewer one at a time, each when it was not needed for a minute', () => {
  const counts = play(seconds(200, 0), {}, 4);
  const changes = counts.flatMap((count, second) =>
    count === (counts[second - 1] ?? 4) ? [] : [[second, count]],
  );
  assert.deepEqual(changes, [
    [60, 3],
    [121, 2],
    [182, 1],
  ]);
});

test('one moment in which they were needed keeps them for another minute', () => {
  const calls = seconds(110, 0);
  calls[50] = 16;
  const counts = play(calls, {}, 4);
  assert.equal(counts[109], 4);
  assert.equal(play([...calls, ...seconds(2, 0)], {}, 4).at(-1), 3);
});

test('the last one is not taken away here, and none is started for calls that are not there', () => {
  assert.equal(play(seconds(200, 0), { min: 0 }).at(-1), 1);
  assert.equal(play(seconds(10, 0), { min: 0 }, 0).at(-1), 0);
});

test('a range that changed is kept to at once', () => {
  assert.deepEqual(play([0], { min: 3 }, 1), [3]);
  assert.deepEqual(play([100], { max: 2 }, 6), [2]);
});

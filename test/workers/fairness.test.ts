import assert from 'node:assert/strict';
import { test } from 'node:test';
import { measureFairness } from '../bench/harness/fairness.ts';
import { percentile } from '../bench/harness/number.ts';

/** Scaled down from test/bench/fairness.ts. Medians of the later calls, and not p95s of all: other tests run, too. */

const shapes = [
  // Without fair places the other's calls would wait for 64 others: 65 times as long.
  { name: 'a server that does one call at a time, all of which may be inside', places: 1, concurrency: 256 },
  { name: 'a server that does four', places: 4, concurrency: 256 },
  { name: 'a queue before a server that does one', places: 1, concurrency: 1 },
];

for (const { name, ...shape } of shapes) {
  test(`64 calls of one caller do not delay another’s: ${name}`, { timeout: 60_000 }, async () => {
    const [round] = await measureFairness({
      ...shape,
      paceMs: 4,
      greedy: 64,
      calls: 90,
      rounds: 1,
    });
    assert.ok(round);
    const ratio = percentile(round.crowded.slice(-40), 0.5) / percentile(round.alone, 0.5);
    assert.ok(ratio <= 4, `${ratio} times as long`);
  });
}

test('a server that does all at once is not slowed down for the greedy one', {
  timeout: 60_000,
}, async () => {
  const shape = { places: 0, concurrency: 256, paceMs: 20, calls: 60, rounds: 1 };
  const [few] = await measureFairness({ ...shape, greedy: 8 });
  const [many] = await measureFairness({ ...shape, greedy: 64 });
  assert.ok(few && many);
  const gain = many.greedyRate / few.greedyRate;
  assert.ok(gain >= 3, `8 times as many in flight do ${gain} times as much`);
});

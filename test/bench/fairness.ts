import { measureFairness } from './harness/fairness.ts';
import { percentile, report } from './harness/number.ts';

/**
 * One caller with 64 calls under way, and what that does to another. What comes over a busy machine comes over single
 * rounds, so their median counts; in the first one the worker also finds out how much its server can do at once.
 */

const ROUNDS = 7;
const CALLS = 200;
const shapes = [
  { server: 'one call at a time', places: 1, concurrency: 256 },
  { server: 'four calls at a time', places: 4, concurrency: 256 },
  { server: 'all calls at once', places: 0, concurrency: 256 },
  { server: 'one call at a time', places: 1, concurrency: 1 },
];
for (const { server, ...shape } of shapes) {
  const rounds = await measureFairness({ ...shape, paceMs: 5, greedy: 64, calls: CALLS, rounds: ROUNDS });
  const ratios = rounds.map(({ alone, crowded }) => percentile(crowded, 0.95) / percentile(alone, 0.95));
  report({
    what: `Greedy caller with 64 in flight, server does ${server}, concurrency ${shape.concurrency}: another's p95 of ${CALLS} calls / alone, median of ${ROUNDS} rounds`,
    value: percentile(ratios, 0.5),
    bar: 2,
  });
}

import { percentile, report } from './harness/number.ts';
import { measureSkewedLoad } from './harness/skewed-load.ts';

/**
 * One instance of four 20 times slower: real workers, gateway and plugin. What comes over a busy machine comes over
 * single rounds, so their median counts.
 */

const ROUNDS = 5;
const CALLS = 500;

const rounds = await measureSkewedLoad({
  paceMs: 10,
  slower: 20,
  calls: CALLS,
  callsPerSecond: 80,
  rounds: ROUNDS,
});
const p99 = ({ times }: { times: number[] }) => percentile(times, 0.99);
report({
  what: `One of four 20 times slower, ${CALLS} calls: p99 of ADAPTIVE / of ROUND_ROBIN, median of ${ROUNDS} rounds`,
  value: percentile(
    rounds.map(({ adaptive, roundRobin }) => p99(adaptive) / p99(roundRobin)),
    0.5,
  ),
  bar: 0.35,
});

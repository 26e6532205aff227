import { chanceOfTies, errorOfShares, excessOfMoves } from './harness/choosing.ts';
import { report } from './harness/number.ts';
import { simulateStaleReports } from './harness/stale-reports.ts';

/** Exact counts of what the strategies promise, without any part that takes time. */

const PICKS = 20_000;

report({
  what: `WEIGHTED: largest error of a share, weights 1 to 100, ${PICKS} picks`,
  value: errorOfShares([1, 5, 10, 34, 50, 100], PICKS),
  bar: 0.03,
});
for (const instances of [3, 10, 100]) {
  report({
    what: `IP_HASH: keys that move beyond 1/n when one joins as the ${instances}th, of ${PICKS}`,
    value: excessOfMoves(instances, PICKS),
    bar: 0.03,
  });
}
report({
  what: `LEAST_CONNECTIONS: chi-square of ties, pairs of 4 instances, ${PICKS} picks / what chance exceeds once in 10,000`,
  value: chanceOfTies(4, PICKS),
  bar: 1,
});
for (const callsPerSecond of [900, 1800]) {
  const shape = { gateways: 3, instances: 6, concurrency: 3, callMs: 10, seconds: 30 };
  const busy = Math.round((callsPerSecond * shape.callMs) / (10 * shape.instances * shape.concurrency));
  report({
    what: `Stampede, simulated: 3 gateways, reports always 2 s old, ${busy} % busy: largest share of any 2 s / fair share`,
    value: simulateStaleReports({ ...shape, callsPerSecond }),
    bar: 2,
  });
}

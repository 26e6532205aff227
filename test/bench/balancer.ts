import { STRATEGIES } from '../../kong-plugin/balancer/balancer.ts';
import { timeOfChoice } from './harness/choosing.ts';
import { report } from './harness/number.ts';

/** Time of one choice among 1,000 instances, by strategy, against 20 µs. */

const INSTANCES = 1000;
const PICKS = 20_000;
const BAR_US = 20;

for (const [name, create] of STRATEGIES) {
  report({
    what: `${name}: one choice of ${INSTANCES}, ${PICKS} times: µs / 20`,
    value: timeOfChoice(create(), INSTANCES, PICKS) / BAR_US,
    bar: 1,
  });
}

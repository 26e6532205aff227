import { type Candidate, type Random, type Strategy, withFallbacks } from './strategy.ts';

const GOLDEN = (Math.sqrt(5) - 1) / 2;

/**
 * By the weights in Consul. Multiples of the golden ratio, modulo one, are spread more evenly than any random numbers,
 * so shares come out exact over short runs, too, and no instance gets its share in one burst.
 */
export function createWeighted(random: Random = Math.random): Strategy {
  let bounds: number[] = [];
  let boundsOf: readonly Candidate[] | undefined;
  // Gateways must not walk in step.
  let step = random();
  return {
    pick(candidates, _call, wanted) {
      if (candidates !== boundsOf) {
        let sum = 0;
        bounds = candidates.map(({ instance }) => {
          sum += instance.weights.passing;
          return sum;
        });
        boundsOf = candidates;
      }
      step = (step + GOLDEN) % 1;
      const first = candidates[indexOf(bounds, step * (bounds.at(-1) ?? 0))] ?? candidates[0];
      return first ? withFallbacks(first, candidates, wanted, random) : [];
    },
  };
}

/** Index of the first bound above `at`, by bisection. */
function indexOf(bounds: readonly number[], at: number): number {
  let low = 0;
  let high = bounds.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((bounds[middle] as number) > at) high = middle;
    else low = middle + 1;
  }
  return low;
}

import type { Candidate, Random, Strategy } from './strategy.ts';
import { withFallbacks } from './strategy.ts';

/** The instance with the fewest calls, ours and reported ones; among equals any, so that no place in the list is favoured. */
export function createLeastConnections(random: Random = Math.random): Strategy {
  return {
    pick(candidates, { now }, wanted) {
      let best: Candidate | undefined;
      let fewest = Number.POSITIVE_INFINITY;
      let equals = 0;
      for (const candidate of candidates) {
        const calls = candidate.load.calls(now);
        if (calls > fewest) continue;
        equals = calls < fewest ? 1 : equals + 1;
        fewest = calls;
        // Each of n equals is kept with a chance of 1/n (reservoir sampling).
        if (random() * equals < 1) best = candidate;
      }
      return best ? withFallbacks(best, candidates, wanted, random) : [];
    },
  };
}

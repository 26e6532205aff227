import { anyOf, type Random, type Strategy, withFallbacks } from './strategy.ts';

/** Two at random, the one with fewer calls (power of two choices: Mitzenmacher, 2001). */
export function createRandom(random: Random = Math.random): Strategy {
  return {
    pick(candidates, { now }, wanted) {
      if (candidates.length === 0) return [];
      const [a, b] = [anyOf(candidates, random), anyOf(candidates, random)];
      return withFallbacks(b.load.calls(now) < a.load.calls(now) ? b : a, candidates, wanted, random);
    },
  };
}

import { anyOf, type Candidate, type Random, type Strategy, withFallbacks } from './strategy.ts';

/** From this share of its memory on, an instance is spared. */
const MEMORY_FROM = 0.8;
const MEMORY_SLOPE = 20;
/**
 * An instance nobody has tried is taken for quick, so that it is tried; but by one call: until that is answered all
 * others would go there, too.
 */
const AWAITED_MS = 1000;

/**
 * Two at random, the cheaper one: how long a call would likely take there, by its recent latency, by those that still
 * wait there and by their number, and how short of memory it is. Two choices, not the best of all: gateways with the same old reports would all
 * find the same best one.
 */
export function createAdaptive(random: Random = Math.random): Strategy {
  return {
    pick(candidates, { now }, wanted) {
      if (candidates.length === 0) return [];
      const first = anyOf(candidates, random);
      const second = another(candidates, first, random);
      return withFallbacks(
        costOf(second, now) < costOf(first, now) ? second : first,
        candidates,
        wanted,
        random,
      );
    },
  };
}

/** Milliseconds, more or less. */
export function costOf({ load }: Candidate, now: number): number {
  const report = load.report(now);
  const pressure = 1 + MEMORY_SLOPE * Math.max(0, (report?.memory ?? 0) - MEMORY_FROM);
  const waiting = load.inFlight + (report?.queueDepth ?? 0) + 1;
  const latencyMs = load.isUntried && load.inFlight > 0 ? AWAITED_MS : load.expectedMs(now);
  return latencyMs * waiting * pressure * (report?.breakerOpen ? 100 : 1);
}

function another(candidates: readonly Candidate[], first: Candidate, random: Random): Candidate {
  if (candidates.length === 1) return first;
  const at = Math.floor(random() * (candidates.length - 1));
  const drawn = candidates[at] as Candidate;
  return drawn === first ? (candidates.at(-1) as Candidate) : drawn;
}

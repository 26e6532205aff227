import type { Candidate, Strategy } from './strategy.ts';

/**
 * Each instance in turn, by id. The turn belongs to an id and not to a place in the list: who comes and goes does not
 * send two calls in a row to one that stayed.
 */
export function createRoundRobin(): Strategy {
  let last = '';
  let sorted: Candidate[] = [];
  let sortedFrom: readonly Candidate[] | undefined;
  return {
    pick(candidates, _call, wanted) {
      if (candidates !== sortedFrom) {
        sorted = candidates.toSorted((a, b) => (a.instance.id < b.instance.id ? -1 : 1));
        sortedFrom = candidates;
      }
      const start = firstAfter(sorted, last);
      const picked = Array.from(
        { length: Math.min(wanted, sorted.length) },
        (_, i) => sorted[(start + i) % sorted.length],
      );
      last = picked[0]?.instance.id ?? last;
      return picked as Candidate[];
    },
  };
}

/** Index of the first id behind `id`, by bisection; 0 behind the last. */
function firstAfter(sorted: readonly Candidate[], id: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as Candidate).instance.id > id) high = middle;
    else low = middle + 1;
  }
  return low === sorted.length ? 0 : low;
}

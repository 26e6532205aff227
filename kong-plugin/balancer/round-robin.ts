import type { Strategy } from './strategy.ts';

/**
 * Each instance in turn. The turn belongs to an instance's id and not to a place in the list, so that instances that
 * come and go do not send two calls in a row to one that stayed.
 */
export function createRoundRobin(): Strategy {
  let last = '';
  return {
    rank(instances) {
      const sorted = instances.toSorted((a, b) => (a.id < b.id ? -1 : 1));
      const after = sorted.findIndex(instance => instance.id > last);
      const start = after < 0 ? 0 : after;
      const ranked = [...sorted.slice(start), ...sorted.slice(0, start)];
      last = ranked[0]?.id ?? last;
      return ranked;
    },
  };
}

import type { Instance } from '../../mesh/consul.ts';
import { createRoundRobin } from './round-robin.ts';
import type { Strategy } from './strategy.ts';

export interface Balancer {
  /** Instances of one service, best first, by the service's strategy. */
  rank(service: string, instances: readonly Instance[]): Instance[];
}

/** Keeps one strategy object for each service. */
export function createBalancer(): Balancer {
  const strategies = new Map<string, Strategy>();
  return {
    rank(service, instances) {
      let strategy = strategies.get(service);
      if (!strategy) {
        strategy = createRoundRobin();
        strategies.set(service, strategy);
      }
      return strategy.rank(instances);
    },
  };
}

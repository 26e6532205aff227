import type { Instance } from '../../mesh/consul.ts';

/** Orders the instances that may take a call, best first. One strategy object serves one service. */
export interface Strategy {
  rank(instances: readonly Instance[]): Instance[];
}

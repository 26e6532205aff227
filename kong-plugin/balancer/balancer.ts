import type { Instance } from '../../mesh/consul.ts';
import type { LoadReport } from '../../mesh/load-report.ts';
import { createAdaptive } from './adaptive.ts';
import { createIpHash } from './ip-hash.ts';
import { createLeastConnections } from './least-connections.ts';
import { Load } from './load.ts';
import { createRandom } from './random.ts';
import { createRoundRobin } from './round-robin.ts';
import type { Call, Candidate, Strategy } from './strategy.ts';
import { createWeighted } from './weighted.ts';

export interface Balancer {
  /** The best instances for a call, best first, by the service's strategy. */
  pick(service: Choice, call: Call, wanted: number): Instance[];
  /**
   * A call goes to an instance; it counts there until `release`, or for `ttlMs` when nobody says how it ended. No other
   * call has its id.
   */
  lease(id: string, instance: string, kind: 'call' | 'stream', ttlMs: number): void;
  /** A call has ended. Releasing twice, or one that is not known, does nothing. */
  release(id: string): void;
  /** What an answer told of the instance that gave it. */
  learn(instance: string, answer: { latencyMs: number | undefined; report: LoadReport | undefined }): void;
  load(instance: string): Load | undefined;
  /** Forgets all other instances. */
  retain(instances: ReadonlySet<string>): void;
}

export interface Choice {
  name: string;
  strategy: string;
  /** Instances that may take the call; the same array while they are the same. */
  instances: readonly Instance[];
}

interface Lease {
  end(): void;
  expires: number;
}

/** By their names in the registry. */
export const STRATEGIES: ReadonlyMap<string, () => Strategy> = new Map([
  ['ROUND_ROBIN', createRoundRobin],
  ['LEAST_CONNECTIONS', createLeastConnections],
  ['WEIGHTED', createWeighted],
  ['RANDOM', createRandom],
  ['IP_HASH', createIpHash],
  ['ADAPTIVE', createAdaptive],
]);
const SWEEP_MS = 10_000;

/** Keeps what choosing needs from call to call: one strategy object a service, one load an instance. */
export function createBalancer(now: () => number = Date.now): Balancer {
  const strategies = new Map<string, { name: string; strategy: Strategy }>();
  const loads = new Map<string, Load>();
  const leases = new Map<string, Lease>();
  const candidates = new WeakMap<readonly Instance[], Candidate[]>();
  let sweepAt = now() + SWEEP_MS;

  const strategyOf = ({ name, strategy: wanted }: Choice): Strategy => {
    const known = strategies.get(name);
    if (known?.name === wanted) return known.strategy;
    const strategy = (STRATEGIES.get(wanted) ?? createAdaptive)();
    strategies.set(name, { name: wanted, strategy });
    return strategy;
  };
  const loadOf = (id: string): Load => {
    const known = loads.get(id);
    if (known) return known;
    const load = new Load();
    loads.set(id, load);
    return load;
  };
  const candidatesOf = (instances: readonly Instance[]): Candidate[] => {
    const known = candidates.get(instances);
    if (known) return known;
    const made = instances.map(instance => ({ instance, load: loadOf(instance.id) }));
    candidates.set(instances, made);
    return made;
  };
  const settle = (id: string, lease: Lease) => {
    leases.delete(id);
    lease.end();
  };
  /** A log event that never came must not make an instance look busy for ever. */
  const sweep = () => {
    if (now() < sweepAt) return;
    sweepAt = now() + SWEEP_MS;
    for (const [id, lease] of leases) if (lease.expires <= now()) settle(id, lease);
  };

  return {
    pick(choice, call, wanted) {
      return strategyOf(choice)
        .pick(candidatesOf(choice.instances), call, wanted)
        .map(({ instance }) => instance);
    },
    lease(id, instance, kind, ttlMs) {
      sweep();
      const load = loadOf(instance);
      const end = kind === 'stream' ? load.enterStream() : load.enter(now());
      leases.set(id, { end, expires: now() + ttlMs });
    },
    release(id) {
      const lease = leases.get(id);
      if (lease) settle(id, lease);
    },
    learn(instance, { latencyMs, report }) {
      const load = loadOf(instance);
      if (report) load.accept(report, now());
      if (latencyMs !== undefined) load.observe(latencyMs, now());
    },
    load: instance => loads.get(instance),
    retain(instances) {
      for (const id of loads.keys()) if (!instances.has(id)) loads.delete(id);
    },
  };
}

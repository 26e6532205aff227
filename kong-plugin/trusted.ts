import type { Instance } from '../mesh/consul.ts';
import type { Discovery, KnownService } from './discovery.ts';
import type { Prover } from './prover.ts';

/**
 * Discovery as everything else sees it: an instance that has not proven that it belongs to the mesh is not passing,
 * with that as the reason. `changed` has to be called when the prover came to another result.
 */
export function trustedOnly(discovery: Discovery, prover: Prover): Discovery & { changed(): void } {
  /** By the list it was made of, so that equal lists stay the same array. */
  let views = new WeakMap<readonly Instance[], Instance[]>();
  const view = (instances: Instance[]): Instance[] => {
    const known = views.get(instances);
    if (known) return known;
    const seen = instances.map(instance => distrust(instance, prover));
    const made = seen.every((instance, i) => instance === instances[i]) ? instances : seen;
    views.set(instances, made);
    return made;
  };
  const trusted = (service: KnownService): KnownService => {
    const instances = view(service.instances);
    return instances === service.instances ? service : { ...service, instances };
  };

  return {
    ready: async ms => {
      await discovery.ready(ms);
      await prover.ready(ms);
    },
    find(name) {
      const service = discovery.find(name);
      return service && trusted(service);
    },
    list: () => discovery.list().map(trusted),
    age: now => discovery.age(now),
    close: () => discovery.close(),
    changed() {
      views = new WeakMap();
    },
  };
}

function distrust(instance: Instance, prover: Prover): Instance {
  if (instance.status !== 'passing' || prover.isProven(instance)) return instance;
  return {
    ...instance,
    status: 'critical',
    // What is wrong may become another thing without a change of what is trusted.
    get reason() {
      return prover.reason(instance);
    },
  };
}

import { Gauge, type Registry } from 'prom-client';
import type { BreakerState } from '../../mesh/breaker.ts';
import type { Instance } from '../../mesh/consul.ts';
import { METRIC_PREFIX } from '../../mesh/names.ts';
import type { Balancer } from '../balancer/balancer.ts';
import type { Load } from '../balancer/load.ts';
import type { Discovery, KnownService } from '../discovery.ts';
import type { Ejection } from '../ejection.ts';
import { INSTANCE_STATES } from './catalogue.ts';

export interface InstanceSources {
  discovery: Pick<Discovery, 'list'>;
  balancer: Pick<Balancer, 'load'>;
  ejection: Pick<Ejection, 'state'>;
}

interface InstanceGauge {
  name: string;
  help: string;
  /** undefined: nothing is known of it, and it has no series. */
  value(instance: Instance): number | undefined;
}

const PREFIX = `${METRIC_PREFIX}gateway_`;
const BREAKER_VALUES: Record<BreakerState, number> = { closed: 0, 'half-open': 1, open: 2 };

/** What the gateway knows of each instance, made anew at each scrape: an instance that is gone has no series. */
export function describeInstances(
  { discovery, balancer, ejection }: InstanceSources,
  registers: Registry[],
): void {
  new Gauge({
    name: `${PREFIX}instances`,
    help: 'Instances of a service, by state: what has not proven that it belongs to the mesh is critical',
    labelNames: ['service', 'state'],
    registers,
    collect() {
      this.reset();
      for (const { name: service, instances } of discovery.list()) {
        for (const state of INSTANCE_STATES)
          this.set(
            { service, state },
            count(instances, ({ status }) => status === state),
          );
      }
    },
  });
  new Gauge({
    name: `${PREFIX}ejected_instances`,
    help: 'Instances that get no calls but probes, since their breaker is not closed',
    labelNames: ['service'],
    registers,
    collect() {
      this.reset();
      for (const { name: service, instances } of discovery.list())
        this.set(
          { service },
          count(instances, ({ id }) => ejection.state(id).state !== 'closed'),
        );
    },
  });
  const ofLoad = (value: (load: Load) => number) => (instance: Instance) => {
    const load = balancer.load(instance.id);
    return load && value(load);
  };
  const gauges: InstanceGauge[] = [
    {
      name: 'in_flight',
      help: 'Calls that this gateway has at an instance',
      value: ofLoad(({ inFlight }) => inFlight),
    },
    {
      name: 'streams',
      help: 'Listening streams that this gateway has at an instance',
      value: ofLoad(({ streams }) => streams),
    },
    {
      name: 'latency_seconds',
      help: 'Running mean of the time to an answer that choosing goes by (peak EWMA)',
      value: ofLoad(load => load.latencyMs(Date.now()) / 1000),
    },
    {
      name: 'breaker_state',
      help: 'Breaker of an instance: closed 0, half-open 1, open 2',
      value: ({ id }) => BREAKER_VALUES[ejection.state(id).state],
    },
  ];
  for (const gauge of gauges) addGauge(gauge, discovery, registers);
}

function addGauge(
  { name, help, value }: InstanceGauge,
  discovery: { list(): KnownService[] },
  registers: Registry[],
): void {
  new Gauge({
    name: `${PREFIX}instance_${name}`,
    help,
    labelNames: ['service', 'instance'],
    registers,
    collect() {
      this.reset();
      for (const { name: service, instances } of discovery.list()) {
        for (const instance of instances) {
          const found = value(instance);
          if (found !== undefined) this.set({ service, instance: instance.id }, found);
        }
      }
    },
  });
}

function count(instances: readonly Instance[], holds: (instance: Instance) => boolean): number {
  return instances.reduce((sum, instance) => sum + Number(holds(instance)), 0);
}

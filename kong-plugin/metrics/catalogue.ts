import { Gauge, type Registry } from 'prom-client';
import { METRIC_PREFIX } from '../../mesh/names.ts';
import { addGauge } from '../../mesh/read-metrics.ts';
import type { Discovery } from '../discovery.ts';

export type Catalogue = Pick<Discovery, 'age' | 'list'>;

export const INSTANCE_STATES = ['passing', 'warning', 'critical', 'maintenance'] as const;

/** Read when it is asked for, so that a Consul which no longer answers shows. */
export function describeCatalogue(catalogue: Catalogue, registers: Registry[]): void {
  const prefix = `${METRIC_PREFIX}catalogue_`;
  addGauge(
    `${prefix}age_seconds`,
    'Time since Consul last answered; up to 33 s while all is well',
    () => catalogue.age(Date.now()),
    registers,
  );
  addGauge(`${prefix}services`, 'Services that the gateway knows', () => catalogue.list().length, registers);
  new Gauge({
    name: `${prefix}instances`,
    help: 'Instances that the gateway knows, by their state in Consul',
    labelNames: ['state'],
    registers,
    collect() {
      const instances = catalogue.list().flatMap(service => service.instances);
      for (const state of INSTANCE_STATES)
        this.set({ state }, instances.filter(({ status }) => status === state).length);
    },
  });
}

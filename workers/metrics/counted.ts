import { Counter, Gauge, type Registry } from 'prom-client';
import { METRIC_PREFIX } from '../../mesh/names.ts';

const PREFIX = `${METRIC_PREFIX}worker_`;

/** A gauge without labels, read when it is asked for. */
export function addGauge(name: string, help: string, value: () => number, registers: Registry[]): void {
  new Gauge({
    name: `${PREFIX}${name}`,
    help,
    registers,
    collect() {
      this.set(value());
    },
  });
}

/** A counter that somebody else keeps, read when it is asked for. */
export function addCount(name: string, help: string, count: () => number, registers: Registry[]): void {
  new Counter({
    name: `${PREFIX}${name}`,
    help,
    registers,
    collect() {
      this.reset();
      this.inc(count());
    },
  });
}

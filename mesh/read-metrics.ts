import { Counter, Gauge, type Registry } from 'prom-client';

/** A gauge without labels, read when it is asked for. */
export function addGauge(name: string, help: string, value: () => number, registers: Registry[]): void {
  new Gauge({
    name,
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
    name,
    help,
    registers,
    collect() {
      this.reset();
      this.inc(count());
    },
  });
}

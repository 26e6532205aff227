import { setTimeout as delay } from 'node:timers/promises';
import type { Consul, Instance, Watch } from '../../mesh/consul.ts';

/** Says of a service's instances whether Consul shows them as passing, as gateways see them. */
export class Passing {
  readonly #watch: Watch | undefined;
  #instances: readonly Instance[] = [];
  #failed = false;

  /** Without Consul, everything passes. */
  constructor(consul: Consul | undefined, consulService: string) {
    this.#watch = consul?.watchInstances(
      consulService,
      instances => {
        this.#instances = instances;
        this.#failed = false;
      },
      // What it says itself has to do: a Consul that is away must not stop a rolling restart for ever.
      () => {
        this.#failed = true;
      },
    );
  }

  /** Whether the instance passes, as it was started at or after that moment (epoch ms). */
  has(instance: string, startedAt: number): boolean {
    if (!this.#watch || this.#failed) return true;
    const found = this.#instances.find(({ id }) => id === instance);
    return found?.status === 'passing' && Date.parse(found.meta.started_at ?? '') >= startedAt;
  }

  close(): void {
    this.#watch?.close();
  }
}

/** Polls until it holds, or until it is not worth waiting any more; resolves with whether it held. */
export async function until(holds: () => boolean, isVain: () => boolean, pollMs = 50): Promise<boolean> {
  while (!holds()) {
    if (isVain()) return false;
    await delay(pollMs);
  }
  return true;
}

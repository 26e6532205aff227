import { setTimeout as delay } from 'node:timers/promises';
import type { Consul } from '../../mesh/consul.ts';

/** Where a worker listens, or has listened last: the next one is to come back there. */
export interface Place {
  /** Id in Consul. */
  instance: string;
  address: string;
  port: number;
}

/** Consul takes it within milliseconds or, when it is away, not at all: a restart does not wait for that. */
const TELL_MS = 1000;

/** A slot's entry in Consul, as far as its worker could not see to it: one that was killed told nobody. */
export class Presence {
  readonly #consul: Consul | undefined;
  #place: Place | undefined;
  /** A worker may have left its entry behind. */
  #entered = false;

  constructor(consul: Consul | undefined) {
    this.#consul = consul;
  }

  get place(): Place | undefined {
    return this.#place;
  }

  /** A worker listens, and keeps its entry itself from now on. */
  async enter(place: Place): Promise<void> {
    const before = this.#place;
    this.#place = place;
    if (before && before.instance !== place.instance && this.#entered) await this.#remove(before);
    this.#entered = true;
  }

  /** The worker has ended; one that drained has left. */
  end(clean: boolean): void {
    this.#entered &&= !clean;
  }

  /**
   * It is to come back. Gateways send to it until they know that it ended; and from when it listens again until it is
   * ready nobody may send to it either.
   */
  async fail(reason: string): Promise<void> {
    if (!this.#entered || !this.#place) return;
    const told = this.#consul?.report(this.#place.instance, 'critical', reason).catch(() => {});
    // What Consul does not take now, its TTL check finds out.
    await Promise.race([told, delay(TELL_MS)]);
  }

  /** It has ended for good. */
  async leave(): Promise<void> {
    if (this.#entered && this.#place) await this.#remove(this.#place);
    this.#entered = false;
  }

  async #remove({ instance }: Place): Promise<void> {
    await this.#consul?.deregister(instance).catch(() => {});
  }
}

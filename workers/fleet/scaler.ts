/** How many instances a service is to have, by what its instances report. */

export interface ScalerOptions {
  min: number;
  max: number;
  /** Calls per instance to scale for. */
  target: number;
  /** More are started when so many were needed all this time. */
  upMs: number;
  /** One is taken away when fewer were needed all this time. */
  downMs: number;
}

/** Of all instances of the service together. */
interface Demand {
  /** Milliseconds. */
  now: number;
  /** Calls inside servers and waiting for a place there. */
  calls: number;
  /** Instances there are to be at present. */
  current: number;
}

/**
 * Up fast, down slowly: a burst that is over within moments starts nothing, and a pause takes nothing away that the
 * next burst needs. Going down to 0 is decided elsewhere: no calls at the moment do not mean that nobody calls.
 */
export class Scaler {
  readonly #options: ScalerOptions;
  /** What was needed, oldest first; as far back as the longer of the two times. */
  #samples: { at: number; needed: number }[] = [];

  constructor(options: ScalerOptions) {
    this.#options = options;
  }

  /** Takes in a sample and says how many instances there are to be from now on. */
  next({ now, calls, current }: Demand): number {
    const { min, max, target, upMs, downMs } = this.#options;
    const floor = Math.max(min, Math.min(current, 1));
    const needed = Math.min(max, Math.max(floor, Math.ceil(calls / target)));
    this.#samples.push({ at: now, needed });
    const since = (ms: number) => this.#samples.filter(({ at }) => at > now - ms);
    const covers = (ms: number) => (this.#samples[0]?.at ?? now) <= now - ms;
    if (current > max || current < min) return this.#change(Math.min(max, Math.max(min, current)));
    const lowest = Math.min(...since(upMs).map(sample => sample.needed));
    if (covers(upMs) && lowest > current) return this.#change(lowest);
    const highest = Math.max(...since(downMs).map(sample => sample.needed));
    if (covers(downMs) && highest < current) return this.#change(current - 1);
    this.#samples = this.#samples.filter(({ at }) => at >= now - Math.max(upMs, downMs) - 1);
    return current;
  }

  /** What was needed of fewer instances, or of more, says nothing of those that there are now. */
  #change(count: number): number {
    this.#samples = [];
    return count;
  }
}

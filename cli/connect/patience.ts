import { setTimeout as delay } from 'node:timers/promises';

/** Waits between tries: doubling with jitter, so that many bridges do not come back in one moment. */
export class Backoff {
  readonly #baseMs: number;
  readonly #maxMs: number;
  #tries = 0;

  constructor({ baseMs = 100, maxMs = 5000 }: { baseMs?: number; maxMs?: number } = {}) {
    this.#baseMs = baseMs;
    this.#maxMs = maxMs;
  }

  /** It worked: the next wait is a short one. */
  reset(): void {
    this.#tries = 0;
  }

  /** Milliseconds until the next try. */
  next(): number {
    const longest = Math.min(this.#maxMs, this.#baseMs * 2 ** this.#tries);
    this.#tries += 1;
    return longest * (0.5 + Math.random() / 2);
  }
}

/** Waits; false when the signal came first. */
export async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  return delay(ms, true, { signal, ref: false }).catch(() => false);
}

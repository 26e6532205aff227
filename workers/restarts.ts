import type { ExitCause } from './child.ts';

export type RestartReason = ExitCause | 'recycle';

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;
const JITTER = 0.25;
/** A server that ran this long was healthy: its next failure starts with the shortest wait again. */
const SUSTAINED_UPTIME_MS = 60_000;
/**
 * Ten tries take about two minutes: longer than a database or network that a server needs is away for a restart, so
 * what fails that often needs a person, and each further try costs the machine a start for nothing.
 */
const PARKED_AFTER = 10;
const PARKED_WAIT_MS = 300_000;

/** When a server that ended is started again, and how often it was for which reason. */
export class Restarts {
  readonly #counts: Record<RestartReason, number> = {
    spawn: 0,
    exit: 0,
    signal: 0,
    oom: 0,
    processes: 0,
    hung: 0,
    handshake: 0,
    recycle: 0,
  };
  readonly #random: () => number;
  #failures = 0;

  constructor(random = Math.random) {
    this.#random = random;
  }

  get counts(): Readonly<Record<RestartReason, number>> {
    return { ...this.#counts };
  }

  get total(): number {
    return Object.values(this.#counts).reduce((sum, count) => sum + count, 0);
  }

  /** Ends in a row that came before a sustained uptime. */
  get failures(): number {
    return this.#failures;
  }

  get isParked(): boolean {
    return this.#failures >= PARKED_AFTER;
  }

  recycled(): void {
    this.#counts.recycle += 1;
  }

  /** A server ended after so long; returns how long to wait, in ms, until the next start. */
  ended(cause: ExitCause, uptimeMs: number): number {
    this.#counts[cause] += 1;
    if (uptimeMs >= SUSTAINED_UPTIME_MS) this.#failures = 0;
    const base = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.#failures);
    this.#failures += 1;
    return Math.round((this.isParked ? PARKED_WAIT_MS : base) * (1 + JITTER * (2 * this.#random() - 1)));
  }

  /** Why the server is down, in words. */
  explain(reason: string): string {
    if (!this.isParked) return reason;
    const next = `it is tried again every ${PARKED_WAIT_MS / 60_000} minutes, or at once by a restart`;
    return `parked after ${this.#failures} failed starts; ${reason}; ${next}`;
  }
}

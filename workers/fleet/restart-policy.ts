export interface RestartTimes {
  /** First wait before a worker that ended is started again; doubles up to 30 s. */
  restartFirstMs: number;
  /** A worker that ran this long was healthy: its next failure starts with the shortest wait again. */
  sustainedMs: number;
  /** A parked worker is tried again this often. */
  parkedMs: number;
}

/** How one attempt to run a worker went. */
interface Attempt {
  /** It got as far as to listen. */
  listened: boolean;
  uptimeMs: number;
  /** Somebody killed it: no word on whether it can start. */
  killed: boolean;
}

interface Verdict {
  waitMs: number;
  /** It cannot start, as it seems: trying again soon would only cost CPU. */
  parked: boolean;
  /** For the first time. */
  news: boolean;
}

const MAX_MS = 30_000;
/** Of each wait: workers that ended together do not come back in step. */
const JITTER = 0.25;
/** So many attempts in a row that ended by themselves, and before they listened, are no accident. */
const PARK_AFTER = 5;

/** When a worker that ended is started again. */
export class RestartPolicy {
  readonly #times: RestartTimes;
  #failures = 0;
  #hopeless = 0;

  constructor(times: RestartTimes) {
    this.#times = times;
  }

  judge({ listened, uptimeMs, killed }: Attempt): Verdict {
    const { restartFirstMs, sustainedMs, parkedMs } = this.#times;
    if (listened && uptimeMs >= sustainedMs) this.#failures = 0;
    if (listened) this.#hopeless = 0;
    else if (!killed) this.#hopeless += 1;
    this.#failures += 1;
    const parked = this.#hopeless >= PARK_AFTER;
    const base = Math.min(MAX_MS, restartFirstMs * 2 ** (this.#failures - 1));
    const waitMs = Math.round((parked ? parkedMs : base) * (1 + JITTER * (2 * Math.random() - 1)));
    return { waitMs, parked, news: this.#hopeless === PARK_AFTER && !killed };
  }
}

import type { LoadReport } from '../../mesh/load-report.ts';

/** How long a report counts: an old one must not make an instance look idle to everybody. */
const REPORT_MS = 5000;
/** Time after which a latency has lost two thirds of its weight. */
const LATENCY_DECAY_MS = 10_000;
/** What an instance nobody has tried yet is taken for: quick, so that it is tried. */
const LATENCY_UNKNOWN_MS = 1;

/** What this gateway knows of one instance's load. */
export class Load {
  #streams = 0;
  /** When each call that is there began; the oldest first. */
  readonly #begun = new Set<{ at: number }>();
  #report: LoadReport | undefined;
  #reportedAt = 0;
  #latencyMs = 0;
  #latencyAt = 0;

  /** Calls that this gateway has there now. */
  get inFlight(): number {
    return this.#begun.size;
  }

  /** Listening streams that this gateway has there now: they cost a connection, not work. */
  get streams(): number {
    return this.#streams;
  }

  /** A call goes there. The returned function says that it has ended. */
  enter(now: number): () => void {
    const call = { at: now };
    this.#begun.add(call);
    return () => this.#begun.delete(call);
  }

  /** A listening stream goes there. The returned function says that it has ended; to be called once. */
  enterStream(): () => void {
    this.#streams += 1;
    return () => {
      this.#streams -= 1;
    };
  }

  /** The newest report of the instance, for as long as it counts. */
  report(now: number): LoadReport | undefined {
    return now - this.#reportedAt < REPORT_MS ? this.#report : undefined;
  }

  /** Calls there, waiting ones included: our own, or as many as the instance last said, whichever is more. */
  calls(now: number): number {
    const report = this.report(now);
    return report ? Math.max(this.inFlight, report.inFlight + report.queueDepth) : this.inFlight;
  }

  /** Whether nothing of it has been answered yet. */
  get isUntried(): boolean {
    return this.#latencyAt === 0;
  }

  /** Running mean that follows a rise at once and a fall slowly (peak EWMA), fading while nothing is heard. */
  latencyMs(now: number): number {
    const faded = this.#latencyMs * Math.exp(-(now - this.#latencyAt) / LATENCY_DECAY_MS);
    return Math.max(LATENCY_UNKNOWN_MS, faded);
  }

  /**
   * What a call there takes at least: as long as usual, or as the oldest that waits there has waited by now. An
   * instance that has stopped answers nobody, and would pass for as quick as it was.
   */
  expectedMs(now: number): number {
    const [oldest] = this.#begun;
    return Math.max(this.latencyMs(now), oldest ? now - oldest.at : 0);
  }

  accept(report: LoadReport, now: number): void {
    this.#report = report;
    this.#reportedAt = now;
  }

  /** An answer took this long. */
  observe(ms: number, now: number): void {
    const faded = this.latencyMs(now);
    const share = 1 - Math.exp(-(now - this.#latencyAt) / LATENCY_DECAY_MS);
    this.#latencyMs = ms > faded ? ms : faded + (ms - faded) * share;
    this.#latencyAt = now;
  }
}

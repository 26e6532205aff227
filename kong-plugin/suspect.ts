import { type Breaker, type BreakerState, createBreaker } from '../mesh/breaker.ts';
import type { Instance } from '../mesh/consul.ts';

const DEFAULTS = { failureThreshold: 5, recoverySeconds: 30 };
/** Whoever writes into Consul must not make timers of years. */
const RECOVERY_MAX_SECONDS = 3600;

/** An instance that has failed at least once, with its breaker and the reason in words. */
export class Suspect {
  /** Which run of the worker failed: another one under the same id starts without a record. */
  readonly startedAt: string | undefined;
  readonly #breaker: Breaker;
  #reason = '';
  #failures = 0;
  #probe: ((failure: string | undefined) => void) | undefined;

  constructor(instance: Instance | undefined, onChange: (state: BreakerState, reason: string) => void) {
    this.startedAt = instance?.meta.started_at;
    this.#breaker = createBreaker({
      ...breakerSettings(instance?.meta ?? {}),
      isFailure: () => true,
      onChange: state => onChange(state, this.reason),
    });
  }

  get state(): BreakerState {
    return this.#breaker.state;
  }

  /** Why it is ejected; '' when it is not. */
  get reason(): string {
    return this.state === 'closed' ? '' : this.#reason;
  }

  /** Time to try it again, and nobody does yet. */
  get awaitsProbe(): boolean {
    return this.state === 'half-open' && this.#probe === undefined;
  }

  learn(failure: string | undefined): void {
    if (this.state === 'closed') {
      this.#failures = failure === undefined ? 0 : this.#failures + 1;
      if (failure !== undefined) this.#reason = `${this.#failures} failures in a row, the last: ${failure}`;
    }
    this.#run(failure === undefined ? Promise.resolve() : Promise.reject(new Error(failure)));
  }

  /** Ejects it at once: it said itself that it is in trouble. */
  trip(reason: string): void {
    if (this.state !== 'closed') return;
    this.#reason = reason;
    this.#breaker.trip();
  }

  /** Lets one call through. The returned function tells how it went; the probe has failed when nobody does in time. */
  startProbe(deadlineMs: number): (failure: string | undefined) => void {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const settle = (failure: string | undefined) => {
      if (this.#probe !== settle) return;
      clearTimeout(timer);
      this.#probe = undefined;
      this.#failures = 0;
      if (failure === undefined) return resolve();
      this.#reason = `tried again, and failed: ${failure}`;
      reject(new Error(failure));
    };
    const timer = setTimeout(settle, deadlineMs, `no answer within ${deadlineMs} ms`).unref();
    this.#probe = settle;
    this.#run(promise);
    return settle;
  }

  close(): void {
    this.#probe?.('it is gone');
    this.#breaker.close();
  }

  /** The breaker's own refusal is no news: traffic that ignores an ejection (panic) tells it nothing. */
  #run(outcome: Promise<void>): void {
    outcome.catch(() => {});
    this.#breaker.run(() => outcome).catch(() => {});
  }
}

function breakerSettings(meta: Instance['meta']): { failureThreshold: number; recoveryMs: number } {
  const threshold = Math.floor(Number(meta.failure_threshold));
  const seconds = Number(meta.recovery_timeout);
  return {
    failureThreshold: threshold >= 1 ? threshold : DEFAULTS.failureThreshold,
    recoveryMs: 1000 * Math.min(RECOVERY_MAX_SECONDS, seconds > 0 ? seconds : DEFAULTS.recoverySeconds),
  };
}

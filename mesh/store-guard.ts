import { createBreaker } from './breaker.ts';
import { MeshError } from './errors.ts';

/** What to do with a limited request when its limit cannot be checked: count it in memory, or refuse it. */
export type OnStoreFailure = 'allow' | 'deny';

interface StoreGuardOptions {
  /** As the log names it. */
  name: string;
  onStoreFailure: OnStoreFailure;
  log(text: string): void;
  /** Called for each decision that was made without the store. */
  onFailure(): void;
}

export interface StoreGuard {
  /**
   * The store's own answer, or, when it gives none, what the setting says.
   * @throws MeshError `rate_limited` when it gives none and the setting is `deny`
   */
  run<T>(ask: () => Promise<T>, fallback: () => T): Promise<T>;
  /** For what can be left undone. Never throws. */
  attempt(tell: () => Promise<unknown>): Promise<void>;
  close(): void;
}

/** After a failure the store is left alone for so long: a hung one must cost a few requests its time-out, not all. */
const RECOVERY_MS = 500;

/** Stands before a store that may be away: one log line when it goes, one when it is back. */
export function createStoreGuard({ name, onStoreFailure, log, onFailure }: StoreGuardOptions): StoreGuard {
  let away = false;
  let closed = false;
  const breaker = createBreaker({ failureThreshold: 1, recoveryMs: RECOVERY_MS, isFailure: () => true });

  const ask = async <T>(action: () => Promise<T>): Promise<T> => {
    try {
      const answer = await breaker.run(action);
      if (away) log(`${name} answers again: limits are counted there`);
      away = false;
      return answer;
    } catch (fault) {
      if (!away && !closed)
        log(`${name} cannot be used: ${(fault as Error).message}; ${consequence(onStoreFailure)}`);
      away = true;
      throw fault;
    }
  };

  return {
    async run(action, fallback) {
      try {
        return await ask(action);
      } catch (cause) {
        onFailure();
        if (onStoreFailure === 'allow') return fallback();
        const detail = 'the limit cannot be checked now: its store does not answer';
        throw new MeshError('rate_limited', { detail, retryAfterMs: RECOVERY_MS, cause });
      }
    },
    async attempt(action) {
      await ask(action).catch(() => {});
    },
    close() {
      closed = true;
      breaker.close();
    },
  };
}

function consequence(onStoreFailure: OnStoreFailure): string {
  return onStoreFailure === 'allow'
    ? 'until it can, each process counts limits on its own, in memory'
    : 'until it can, requests with limits are refused';
}

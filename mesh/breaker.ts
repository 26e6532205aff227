import CircuitBreaker from 'opossum';
import { MeshError } from './errors.ts';

export type BreakerState = 'closed' | 'open' | 'half-open';

interface BreakerOptions {
  /** Consecutive failures that open it. */
  failureThreshold: number;
  /** Milliseconds until one probe is let through. */
  recoveryMs: number;
  isFailure(error: unknown): boolean;
  onChange?: (state: BreakerState) => void;
}

export interface Breaker {
  /** Runs the action, or throws MeshError `circuit_open` without running it. */
  run<T>(action: () => Promise<T>): Promise<T>;
  /** Opens it at once, whatever was counted. */
  trip(): void;
  readonly state: BreakerState;
  close(): void;
}

/**
 * A circuit breaker that counts CONSECUTIVE failures (pybreaker's meaning of `failure_threshold`). opossum is the
 * state machine; its own error rate over a window is switched off, since under load it would forgive a dead server.
 * While it is closed it hears of failures only: the good calls, which are nearly all, would cost a twentieth more.
 */
export function createBreaker({
  failureThreshold,
  recoveryMs,
  isFailure,
  onChange,
}: BreakerOptions): Breaker {
  let failures = 0;
  let openedAt = 0;
  const circuit = new CircuitBreaker((action: () => Promise<unknown>) => action(), {
    timeout: false,
    resetTimeout: recoveryMs,
    errorThresholdPercentage: 101,
    rollingPercentilesEnabled: false,
    enableSnapshots: false,
    errorFilter(error) {
      if (isFailure(error)) return false;
      // opossum would take it for a success; a probe that tells nothing must not let everybody in.
      if (circuit.halfOpen) circuit.open();
      return true;
    },
  });
  circuit.on('failure', () => {
    failures += 1;
    if (failures >= failureThreshold && !circuit.opened) circuit.open();
  });
  circuit.on('open', () => {
    openedAt = Date.now();
    onChange?.('open');
  });
  circuit.on('halfOpen', () => onChange?.('half-open'));
  circuit.on('close', () => {
    failures = 0;
    onChange?.('closed');
  });

  const isClosed = () => !circuit.opened && !circuit.halfOpen;
  const runClosed = async <T>(action: () => Promise<T>): Promise<T> => {
    try {
      const value = await action();
      failures = 0;
      return value;
    } catch (error) {
      // One that began before it opened is no probe.
      if (isClosed()) await circuit.fire(() => Promise.reject(error)).catch(() => {});
      throw error;
    }
  };

  const runGuarded = async <T>(action: () => Promise<T>): Promise<T> => {
    try {
      return (await circuit.fire(async () => {
        const value = await action();
        // Not on opossum's 'success': it says that of an excused error, too.
        failures = 0;
        return value;
      })) as T;
    } catch (error) {
      if ((error as { code?: unknown })?.code !== 'EOPENBREAKER') throw error;
      const retryAfterMs = Math.max(0, openedAt + recoveryMs - Date.now());
      const detail = `opened after ${failureThreshold} consecutive failures`;
      throw new MeshError('circuit_open', { detail, delivered: 'no', retryAfterMs, cause: error });
    }
  };

  return {
    run: action => (isClosed() ? runClosed(action) : runGuarded(action)),
    trip() {
      if (!circuit.opened) circuit.open();
    },
    get state() {
      if (isClosed()) return 'closed';
      return circuit.opened ? 'open' : 'half-open';
    },
    close: () => circuit.shutdown(),
  };
}

import { createBreaker } from '../mesh/breaker.ts';
import { MeshError } from '../mesh/errors.ts';
import type { Service } from '../mesh/registry.ts';
import type { CallOptions } from './multiplexer.ts';

export interface ServerBreaker {
  /** @throws MeshError `circuit_open`, and what the action throws */
  run<T>(options: CallOptions, action: () => Promise<T>): Promise<T>;
  readonly isOpen: boolean;
  close(): void;
}

/** What says that the server itself is in trouble; a caller's cancel or a refused call does not. */
const FAILURES = new Set(['timeout', 'child_crashed', 'protocol_error']);

/** The breaker round one server, across its restarts. */
export function createServerBreaker({ circuit_breaker }: Service): ServerBreaker {
  /** Faults that say nothing of the server, or were counted: one crash fails many calls and is one failure. */
  const excused = new WeakSet<object>();
  const breaker = createBreaker({
    failureThreshold: circuit_breaker.failure_threshold,
    recoveryMs: circuit_breaker.recovery_timeout * 1000,
    isFailure(error) {
      if (!(error instanceof MeshError) || !FAILURES.has(error.code) || excused.has(error)) return false;
      excused.add(error);
      return true;
    },
  });
  const excusing = async <T>(action: () => Promise<T>): Promise<T> => {
    try {
      return await action();
    } catch (error) {
      excused.add(error as object);
      throw error;
    }
  };
  return {
    run: (options, action) => breaker.run(options.impatient ? () => excusing(action) : action),
    get isOpen() {
      return breaker.state === 'open';
    },
    close: () => breaker.close(),
  };
}

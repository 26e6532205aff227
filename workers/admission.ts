import { MeshError } from '../mesh/errors.ts';

export interface Admission {
  /**
   * Waits for a place in the server; the returned function gives it back.
   * @throws MeshError `queue_full` with the time until a place is likely free, `timeout` and `cancelled` (not delivered)
   */
  enter(
    principal: string,
    options: { timeoutMs: number; signal?: AbortSignal | undefined },
  ): Promise<() => void>;
  /** Calls that wait. */
  readonly queued: number;
}

interface AdmissionOptions {
  /** Calls inside at once. */
  concurrency: number;
  /** Calls that may wait. */
  queue: number;
  /** Recent time of a call in ms, for Retry-After. */
  latencyMs(): number;
}

interface Waiting {
  admit(): void;
}

const RETRY_MIN_MS = 100;

/**
 * A bounded number of calls in the server and a bounded queue before it, fair between callers: places go round the
 * callers that wait, so one who floods the queue delays the others by one call each round and no more.
 */
export function createAdmission({ concurrency, queue, latencyMs }: AdmissionOptions): Admission {
  /** Callers in the order of their turns; each with its own calls in their order. */
  const turns = new Map<string, Waiting[]>();
  let inside = 0;
  let queued = 0;

  const leave = () => {
    const [next] = turns;
    if (!next) {
      inside -= 1;
      return;
    }
    const [principal, [first, ...rest]] = next;
    turns.delete(principal);
    if (rest.length > 0) turns.set(principal, rest);
    queued -= 1;
    // The place goes over: it is never free in between.
    first?.admit();
  };
  const once = () => {
    let left = false;
    return () => {
      if (!left) leave();
      left = true;
    };
  };

  return {
    get queued() {
      return queued;
    },
    enter(principal, { timeoutMs, signal }) {
      if (inside < concurrency) {
        inside += 1;
        return Promise.resolve(once());
      }
      if (queued >= queue) {
        const retryAfterMs = Math.max(RETRY_MIN_MS, (latencyMs() * (queued + 1)) / concurrency);
        const detail = `${concurrency} calls are running and ${queued} are waiting`;
        return Promise.reject(new MeshError('queue_full', { detail, delivered: 'no', retryAfterMs }));
      }
      return new Promise((resolve, reject) => {
        const give = (code: 'timeout' | 'cancelled', detail: string) => () => {
          remove(turns, principal, waiting);
          queued -= 1;
          done();
          reject(new MeshError(code, { detail, delivered: 'no' }));
        };
        const late = give('timeout', `no place became free within ${timeoutMs} ms`);
        const abort = give('cancelled', 'the client cancelled the request');
        const timer = setTimeout(late, timeoutMs);
        const done = () => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', abort);
        };
        const waiting: Waiting = {
          admit() {
            done();
            resolve(once());
          },
        };
        signal?.addEventListener('abort', abort, { once: true });
        turns.set(principal, [...(turns.get(principal) ?? []), waiting]);
        queued += 1;
      });
    },
  };
}

function remove(turns: Map<string, Waiting[]>, principal: string, waiting: Waiting): void {
  const left = (turns.get(principal) ?? []).filter(other => other !== waiting);
  if (left.length > 0) turns.set(principal, left);
  else turns.delete(principal);
}

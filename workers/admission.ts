import { MeshError } from '../mesh/errors.ts';
import { createAdaptiveLimit } from './adaptive-limit.ts';
import type { CancelSignal } from './canceller.ts';
import { InFlight } from './in-flight.ts';

export interface EnterOptions {
  timeoutMs: number;
  signal?: CancelSignal | undefined;
}

export interface Admission {
  /** Takes a place that is free; undefined where there is none, and the caller has to wait for one. */
  enterNow(principal: string): (() => void) | undefined;
  /**
   * Waits for a place in the server; the returned function gives it back.
   * @throws MeshError `queue_full` with the time until a place is likely free, `timeout` and `cancelled` (not delivered)
   */
  enter(principal: string, options: EnterOptions): Promise<() => void>;
  /** Calls that wait. */
  readonly queued: number;
}

interface AdmissionOptions {
  /** Calls inside at once. */
  concurrency: number;
  /** Calls that may wait when so many are inside. */
  queue: number;
  /** Recent time of a call in ms, for Retry-After. */
  latencyMs(): number;
  /** Milliseconds. */
  now?(): number;
}

/** One with calls inside or waiting. */
interface Caller {
  principal: string;
  inside: number;
  /** In their order. */
  waiting: Waiting[];
  /** Number of its last change of place: of equals, the one with the lowest has waited longest for its turn. */
  turn: number;
}

interface Waiting {
  admit(): void;
  refuse(error: MeshError): void;
}

const RETRY_MIN_MS = 100;

/**
 * A bounded number of calls in the server and a bounded queue before it, both fair between callers. A free place goes
 * to the caller with the fewest calls inside, so one who floods the queue delays others by the calls inside and no
 * more; when the queue is full, the longest line gives way. And since a server that works on few calls at once has a
 * queue of its own, in which nobody is spared the calls before, no caller gets more than one place there once it is
 * found to be full (adaptive-limit.ts).
 */
export function createAdmission(options: AdmissionOptions): Admission {
  const { concurrency, queue, latencyMs, now = () => performance.now() } = options;
  const limit = createAdaptiveLimit({ max: concurrency, now });
  const callers = new InFlight<string, Caller>();
  let inside = 0;
  /** Calls inside beyond each caller's first: only these are limited. */
  let extra = 0;
  let queued = 0;
  let turns = 0;

  const mayEnter = (caller: Caller) =>
    inside < concurrency && (caller.inside === 0 || extra + 1 < limit.value);
  const forgetIdle = ({ principal, inside, waiting }: Caller) => {
    if (inside === 0 && waiting.length === 0) callers.delete(principal);
  };
  const changed = (caller: Caller) => {
    turns += 1;
    caller.turn = turns;
    forgetIdle(caller);
  };
  const callerOf = (principal: string): Caller => {
    const known = callers.get(principal);
    if (known) return known;
    turns += 1;
    const caller = { principal, inside: 0, waiting: [], turn: turns };
    callers.set(principal, caller);
    return caller;
  };
  const goIn = (caller: Caller): (() => void) => {
    if (caller.inside > 0) extra += 1;
    caller.inside += 1;
    inside += 1;
    changed(caller);
    const crowd = extra + 1;
    const enteredAt = now();
    let left = false;
    return () => {
      if (left) return;
      left = true;
      inside -= 1;
      caller.inside -= 1;
      if (caller.inside > 0) extra -= 1;
      changed(caller);
      limit.ended({ principal: caller.principal, ms: now() - enteredAt, crowd, pressed: queued > 0 });
      admitWaiting();
    };
  };
  const admitWaiting = () => {
    while (queued > 0) {
      const caller = nextOf(callers.values());
      if (!caller || !mayEnter(caller)) return;
      queued -= 1;
      caller.waiting.shift()?.admit();
    }
  };
  const refusal = (): MeshError => {
    const retryAfterMs = Math.max(RETRY_MIN_MS, (latencyMs() * (queued + 1)) / Math.max(1, inside));
    const detail = `${inside} calls are running and ${queued} are waiting`;
    return new MeshError('queue_full', { detail, delivered: 'no', retryAfterMs });
  };
  /** False when the caller itself has the longest line. */
  const makeRoom = (caller: Caller): boolean => {
    const longest = longestOf(callers.values());
    if (!longest || longest.waiting.length <= caller.waiting.length + 1) return false;
    const error = refusal();
    queued -= 1;
    longest.waiting.pop()?.refuse(error);
    return true;
  };

  return {
    get queued() {
      return queued;
    },
    enterNow(principal) {
      const caller = callerOf(principal);
      if (mayEnter(caller)) return goIn(caller);
      forgetIdle(caller);
      return undefined;
    },
    enter(principal, { timeoutMs, signal }) {
      const caller = callerOf(principal);
      if (mayEnter(caller)) return Promise.resolve(goIn(caller));
      if (inside + queued >= concurrency + queue && !makeRoom(caller)) {
        forgetIdle(caller);
        return Promise.reject(refusal());
      }
      queued += 1;
      const giveUp = () => {
        queued -= 1;
        forgetIdle(caller);
      };
      return waitInLine(caller.waiting, { timeoutMs, signal, admit: () => goIn(caller), giveUp });
    },
  };
}

interface WaitOptions extends EnterOptions {
  admit(): () => void;
  /** Called when it waits no longer, and was not admitted. */
  giveUp(): void;
}

function waitInLine(line: Waiting[], { timeoutMs, signal, admit, giveUp }: WaitOptions): Promise<() => void> {
  return new Promise((resolve, reject) => {
    const stop = (code: 'timeout' | 'cancelled', detail: string) => () => {
      line.splice(line.indexOf(waiting), 1);
      giveUp();
      waiting.refuse(new MeshError(code, { detail, delivered: 'no' }));
    };
    const late = stop('timeout', `no place became free within ${timeoutMs} ms`);
    const abort = stop('cancelled', 'the client cancelled the request');
    const timer = setTimeout(late, timeoutMs);
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    };
    const waiting: Waiting = {
      admit() {
        done();
        resolve(admit());
      },
      refuse(error) {
        done();
        reject(error);
      },
    };
    signal?.addEventListener('abort', abort, { once: true });
    line.push(waiting);
  });
}

/** Whose turn it is: of those that wait, who has the fewest calls inside, and of equals who had none for longest. */
function nextOf(callers: Iterable<Caller>): Caller | undefined {
  let best: Caller | undefined;
  for (const caller of callers) {
    if (caller.waiting.length === 0) continue;
    const fewer = best === undefined || caller.inside < best.inside;
    if (fewer || (caller.inside === best?.inside && caller.turn < best.turn)) best = caller;
  }
  return best;
}

function longestOf(callers: Iterable<Caller>): Caller | undefined {
  let longest: Caller | undefined;
  for (const caller of callers) {
    if (caller.waiting.length > (longest?.waiting.length ?? 0)) longest = caller;
  }
  return longest;
}

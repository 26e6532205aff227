import { setTimeout as pause } from 'node:timers/promises';

type Look<T> = () => Promise<T | false | undefined> | T | false | undefined;

interface Until {
  <T>(look: Look<T>): Promise<T>;
  <T>(what: string, look: Look<T>, explain?: () => string): Promise<T>;
}

const DEADLINE_MS = 30_000;
const POLL_MS = 20;

/**
 * Waits for a state, and resolves with what was found. The deadline only ends a test that failed: with its name, or its
 * source when it has none, and what there was instead.
 */
export const until = untilWithin(DEADLINE_MS);

/** `until` for what may take longer on a busy machine; in ms. */
export function untilWithin(deadlineMs: number): Until {
  return async <T>(...args: [Look<T>] | [string, Look<T>, ((() => string) | undefined)?]): Promise<T> => {
    const [what, look, explain = () => ''] = args.length === 1 ? [String(args[0]), args[0]] : args;
    const deadline = Date.now() + deadlineMs;
    for (;;) {
      const found = await look();
      if (found !== false && found !== undefined) return found;
      if (Date.now() > deadline) throw new Error(`no ${what} within ${deadlineMs} ms; ${explain()}`);
      await pause(POLL_MS);
    }
  };
}

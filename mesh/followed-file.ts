import { readFile } from 'node:fs/promises';

interface FollowOptions {
  path: string;
  /** The text that is in force at the start. */
  text: string;
  /** Milliseconds between two looks at the file. */
  pollMs?: number | undefined;
  /** Puts a new text in force. What it throws is the file's error, until there is another text. */
  accept(text: string): void;
  /** The error of a file that cannot be read. */
  unreadable(cause: unknown): Error;
  /** There is no error any more, or another one; called once for each. Must not throw. */
  onError(error: Error | undefined): void;
}

const POLL_MS = 1000;
/** A text counts when it was read twice in a row, this far apart: a writer may be in the middle of the file. */
const SETTLE_MS = 100;

/**
 * Follows the text of a file. It is read and compared at each look: that sees an atomic rename, a swapped symbolic
 * link (Kubernetes) and a change within the clock's tick, which watching names, inodes or times does not. Does not keep
 * the process alive; the returned function ends it.
 */
export function followFile(options: FollowOptions): () => void {
  const { path, pollMs = POLL_MS, accept, unreadable, onError } = options;
  let inForce = options.text;
  /** What the last look found, and what of it has been dealt with. */
  let seen = inForce;
  let settled = inForce;
  let closed = false;

  const look = async (): Promise<number> => {
    const found = await readFile(path, 'utf8').catch(unreadable);
    if (closed) return pollMs;
    const text = typeof found === 'string' ? found : found.message;
    const twice = text === seen;
    seen = text;
    if (text === settled) return pollMs;
    if (!twice) return Math.min(SETTLE_MS, pollMs);
    settled = text;
    try {
      if (typeof found !== 'string') throw found;
      if (text !== inForce) accept(text);
      inForce = text;
    } catch (fault) {
      onError(fault as Error);
      return pollMs;
    }
    onError(undefined);
    return pollMs;
  };
  let timer: NodeJS.Timeout;
  const schedule = (delayMs: number) => {
    timer = setTimeout(() => void look().then(next => !closed && schedule(next)), delayMs).unref();
  };
  schedule(pollMs);

  return () => {
    closed = true;
    clearTimeout(timer);
  };
}

import { readPieces, readRefusal } from './answers.ts';
import type { LegacySession } from './legacy-session.ts';
import type { Link } from './link.ts';
import { Backoff, pause } from './patience.ts';

interface StandingStreamOptions {
  link: Link;
  session: LegacySession;
  /** Gets each message; `generation` is the session's that it came in. */
  onMessage(text: string, generation: number): Promise<void>;
}

const METHOD_NOT_ALLOWED = 405;

/**
 * The stream by which a legacy server speaks of its own accord (GET, 2025-11-25 and before): opened again when it
 * breaks, behind the last event where events have ids, for as long as the session lasts.
 */
export class StandingStream {
  readonly #options: StandingStreamOptions;
  #stop: AbortController | undefined;

  constructor(options: StandingStreamOptions) {
    this.#options = options;
  }

  /** Begins, or begins anew for another session. */
  start(): void {
    this.stop();
    const stop = new AbortController();
    this.#stop = stop;
    void this.#run(stop.signal).catch(() => {});
  }

  stop(): void {
    this.#stop?.abort();
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { session } = this.#options;
    const { generation } = session;
    const backoff = new Backoff({ baseMs: 200, maxMs: 15_000 });
    let last: string | undefined;
    while (!signal.aborted) {
      try {
        const isOver = await this.#listen(signal, generation, last, eventId => {
          if (eventId !== undefined) last = eventId;
          backoff.reset();
        });
        if (isOver) return;
      } catch {
        // Not there, or broken off: the next try tells.
      }
      if (!(await pause(backoff.next(), signal))) return;
    }
  }

  /** True: there is no such stream, or it is another session's turn. */
  async #listen(
    signal: AbortSignal,
    generation: number,
    last: string | undefined,
    onPiece: (eventId: string | undefined) => void,
  ): Promise<boolean> {
    const { link, session, onMessage } = this.#options;
    const resume = last === undefined ? {} : { 'last-event-id': last };
    const headers = { accept: 'text/event-stream', ...session.headers(), ...resume };
    const answer = await link.send({ method: 'GET', headers, signal });
    const status = answer.statusCode ?? 0;
    if (status >= 300) {
      const refusal = await readRefusal(answer);
      if (session.isLost(refusal)) {
        await session.renew(generation);
        return true;
      }
      // The mesh's own refusals may pass; those of another server are its way to say that it has no such stream.
      return status === METHOD_NOT_ALLOWED || (status < 500 && refusal.code === undefined);
    }
    for await (const { text, eventId } of readPieces(answer)) {
      onPiece(eventId);
      if (text !== undefined) await onMessage(text, generation);
    }
    return false;
  }
}

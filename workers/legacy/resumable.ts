import { randomBytes } from 'node:crypto';
import type { EventStream } from '../event-stream.ts';

/** The events of one answer, kept so that a client that lost the connection can go on where it was. */
export interface ResumableStream {
  attach(stream: EventStream): void;
  send(data: string): void;
  end(): void;
  readonly open: boolean;
}

interface Kept {
  session: string;
  stream: EventStream | undefined;
  events: string[];
  /** Events before this number are gone. */
  first: number;
  bytes: number;
  ended: boolean;
}

/** How long the rest of an answer waits for its client after its end. */
const KEEP_MS = 60_000;
const KEEP_BYTES = 1_000_000;
/** Of all streams together. */
const TOTAL_BYTES = 32_000_000;
const RETRY_MS = 1000;
const EVENT_ID = /^([\w-]+)_(\d+)$/;

/** Resumable answers of one worker (2025-11-25, resumability): event ids name the stream and the place in it. */
export class ResumableStreams {
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;

  /** A new stream of a session. */
  create(session: string): ResumableStream {
    const id = randomBytes(9).toString('base64url');
    const kept: Kept = { session, stream: undefined, events: [], first: 1, bytes: 0, ended: false };
    this.#kept.set(id, kept);
    return {
      attach(stream) {
        kept.stream = stream;
        stream.prime(`${id}_0`, RETRY_MS);
      },
      send: data => {
        this.#keep(kept, data);
        kept.stream?.send(data, `${id}_${kept.first + kept.events.length - 1}`);
      },
      end: () => {
        kept.ended = true;
        kept.stream?.end();
        setTimeout(() => this.#forget(id), KEEP_MS).unref();
      },
      get open() {
        return kept.stream?.open ?? false;
      },
    };
  }

  #keep(kept: Kept, data: string): void {
    kept.events.push(data);
    kept.bytes += data.length;
    this.#bytes += data.length;
    while (kept.bytes > KEEP_BYTES && kept.events.length > 1) {
      const dropped = kept.events.shift()?.length ?? 0;
      kept.bytes -= dropped;
      this.#bytes -= dropped;
      kept.first += 1;
    }
    if (this.#bytes <= TOTAL_BYTES) return;
    const ended = this.#kept.entries().find(([, other]) => other.ended)?.[0];
    if (ended !== undefined) this.#forget(ended);
  }

  #forget(id: string): void {
    this.#bytes -= this.#kept.get(id)?.bytes ?? 0;
    this.#kept.delete(id);
  }

  /** Goes on behind `lastEventId` on another connection; false when that stream is not ours, or no longer. */
  resume(lastEventId: string, session: string, stream: () => EventStream): boolean {
    const [, id = '', number = ''] = EVENT_ID.exec(lastEventId) ?? [];
    const kept = this.#kept.get(id);
    if (!kept || kept.session !== session) return false;
    const next = stream();
    kept.stream?.end();
    kept.stream = next;
    kept.events.forEach((data, i) => {
      const at = kept.first + i;
      if (at > Number(number)) next.send(data, `${id}_${at}`);
    });
    if (kept.ended) next.end();
    return true;
  }
}

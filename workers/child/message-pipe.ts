import type { Writable } from 'node:stream';
import { forLineReaders } from '../../mesh/json-text.ts';
import type { WireText } from '../../mesh/wire-text.ts';

/** Of input that the server has not read yet; beyond it the server is stuck, and more would only fill our memory. */
const UNREAD_MAX_BYTES = 64 * 1024 * 1024;

/** A server's stdin: a message a line (MCP, stdio). */
export class MessagePipe {
  readonly #pipe: Writable;
  #gathering = false;

  constructor(pipe: Writable) {
    this.#pipe = pipe;
  }

  /**
   * Writes one message; false when nobody reads it any more. All messages of one turn of the event loop leave in one
   * system call; `alone`: there is no other to wait for.
   */
  write(line: WireText, alone: boolean): boolean {
    const pipe = this.#pipe;
    if (!pipe.writable || pipe.writableLength > UNREAD_MAX_BYTES) return false;
    if (!alone) this.#gather();
    if (typeof line === 'string') {
      pipe.write(`${forLineReaders(line)}\n`);
      return true;
    }
    line.retain();
    pipe.cork();
    for (const piece of line.pieces) pipe.write(piece);
    pipe.write('\n', fault => {
      // Of one that failed something may still be on its way.
      if (!fault) line.release();
    });
    pipe.uncork();
    return true;
  }

  #gather(): void {
    if (this.#gathering) return;
    this.#gathering = true;
    this.#pipe.cork();
    setImmediate(() => {
      this.#gathering = false;
      this.#pipe.uncork();
    });
  }
}

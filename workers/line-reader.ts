import { Chunk } from '../mesh/chunk.ts';
import { type WireText, wireText } from '../mesh/wire-text.ts';

const NEWLINE = 0x0a;

interface LineReaderOptions {
  /** Longest line in bytes; a longer one is dropped whole. */
  maxBytes: number;
  onLine(line: WireText): void;
  /** Called once for each line that was dropped, with its first bytes as text. */
  onTooLong(head: string): void;
}

const HEAD_BYTES = 256;

/**
 * Cuts a byte stream at newlines (MCP stdio framing). What is handed on is a whole line, so that a character split
 * over two reads survives; memory stays bounded by `maxBytes` however long a line goes on. The chunks become the
 * reader's own; a long line is for whoever gets it to release.
 */
export function createLineReader({
  maxBytes,
  onLine,
  onTooLong,
}: LineReaderOptions): (bytes: Buffer) => void {
  let parts: Buffer[] = [];
  let memory: Chunk[] = [];
  let size = 0;
  let dropping = false;

  const clear = () => {
    parts = [];
    memory = [];
  };
  const add = (piece: Buffer, chunk: Chunk) => {
    if (dropping || piece.length === 0) return;
    parts.push(piece);
    memory.push(chunk.retain());
    size += piece.length;
    if (size <= maxBytes) return;
    onTooLong(Buffer.concat(parts).toString('utf8', 0, HEAD_BYTES));
    for (const held of memory) held.release();
    clear();
    dropping = true;
  };
  const finish = () => {
    const text = dropping || size === 0 ? undefined : wireText(parts, memory);
    clear();
    size = 0;
    dropping = false;
    if (text !== undefined) onLine(text);
  };

  return bytes => {
    const chunk = new Chunk(bytes);
    let from = 0;
    for (;;) {
      const end = bytes.indexOf(NEWLINE, from);
      if (end < 0) break;
      add(bytes.subarray(from, end), chunk);
      finish();
      from = end + 1;
    }
    add(bytes.subarray(from), chunk);
    chunk.release();
  };
}

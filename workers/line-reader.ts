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
 * over two reads survives; memory stays bounded by `maxBytes` however long a line goes on.
 */
export function createLineReader({
  maxBytes,
  onLine,
  onTooLong,
}: LineReaderOptions): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let size = 0;
  let dropping = false;

  const add = (piece: Buffer) => {
    if (dropping || piece.length === 0) return;
    parts.push(piece);
    size += piece.length;
    if (size <= maxBytes) return;
    onTooLong(Buffer.concat(parts).toString('utf8', 0, HEAD_BYTES));
    parts = [];
    dropping = true;
  };
  const finish = () => {
    const line = parts;
    const complete = !dropping && size > 0;
    parts = [];
    size = 0;
    dropping = false;
    if (complete) onLine(wireText(line));
  };

  return chunk => {
    let from = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, from);
      if (end < 0) break;
      add(chunk.subarray(from, end));
      finish();
      from = end + 1;
    }
    add(chunk.subarray(from));
  };
}

import { isAscii, isUtf8 } from 'node:buffer';
import type { Chunk } from './chunk.ts';
import { scratch } from './json-strings.ts';
import { applyEdits, type Edit, inAscii, onOneLine } from './json-text.ts';

/** JSON text on its way: a string, or, where it is long, what has the same methods. */
export type WireText = string | LongText;

/** Below it a string costs less than what it takes to handle bytes. */
const LONG_BYTES = 8 * 1024;
/** A piece is worth no less: many small ones are put together. */
const PIECE_BYTES = 4 * 1024;
const LINE_ENDS = [0x0a, 0x0d];
const BLANK = 0x20;

/**
 * A long text, in the pieces in which it was read. V8 copies a string that lives as long as a call twice, and puts
 * several of them in a call's way; bytes lie outside its heap, and go from socket to pipe as they came. All of them are
 * ASCII, as most long texts are (Base64, JSON with escapes): so an index in the text is one in the bytes.
 */
export class LongText {
  readonly #pieces: readonly Buffer[];
  /** In bytes, which are the characters. */
  readonly length: number;
  readonly #memory: readonly Chunk[];

  /** `memory`: what the pieces lie in, of which the text is a user. */
  constructor(pieces: readonly Buffer[], length: number, memory: readonly Chunk[] = []) {
    this.#pieces = pieces;
    this.length = length;
    this.#memory = memory;
  }

  get pieces(): readonly Buffer[] {
    if (this.#memory.some(chunk => chunk.isGone))
      throw new Error('a text was read after its memory was given back');
    return this.#pieces;
  }

  /** There is another user of the text, and of those that were edited out of it. */
  retain(): void {
    for (const chunk of this.#memory) chunk.retain();
  }

  /** One of its users is done with it. With the last one it is gone. */
  release(): void {
    for (const chunk of this.#memory) chunk.release();
  }

  /** All of it, in one place: valid until the next call, for any text. */
  get bytes(): Buffer {
    const { pieces } = this;
    const [first] = pieces;
    if (first && pieces.length === 1) return first;
    if (this.length > scratch.length) return Buffer.concat(pieces);
    let at = 0;
    for (const piece of pieces) at += piece.copy(scratch, at);
    return scratch.subarray(0, this.length);
  }

  toString(): string {
    return this.bytes.toString('latin1');
  }

  /** As `String.prototype.slice`. */
  slice(start: number, end: number = this.length): string {
    const from = start < 0 ? Math.max(0, this.length + start) : start;
    return this.#cut(from, end)
      .map(piece => piece.toString('latin1'))
      .join('');
  }

  /** The text with each edit's span replaced, in the same memory; spans must not overlap. */
  edit(edits: Edit[]): LongText {
    const pieces: Buffer[] = [];
    let from = 0;
    let { length } = this;
    for (const { start, end, json } of edits.toSorted((a, b) => a.start - b.start)) {
      const inserted = Buffer.from(inAscii(json), 'latin1');
      pieces.push(...this.#cut(from, start), inserted);
      length += inserted.length - (end - start);
      from = end;
    }
    pieces.push(...this.#cut(from, this.length));
    return new LongText(pieces, length, this.#memory);
  }

  /** Puts all of it on one line, where it lies (see `onOneLine`). */
  joinLines(): this {
    for (const piece of this.pieces) {
      for (const lineEnd of LINE_ENDS) {
        for (let at = piece.indexOf(lineEnd); at >= 0; at = piece.indexOf(lineEnd, at + 1)) piece[at] = BLANK;
      }
    }
    return this;
  }

  #cut(start: number, end: number): Buffer[] {
    const cut: Buffer[] = [];
    let at = 0;
    for (const piece of this.pieces) {
      const part = piece.subarray(Math.max(0, start - at), Math.max(0, end - at));
      if (part.length > 0) cut.push(part);
      at += piece.length;
    }
    return cut;
  }
}

/**
 * The text of these pieces (UTF-8), which become its own; what is no UTF-8 in them is replaced (U+FFFD). Of their memory
 * it is a user in the caller's place.
 */
export function wireText(pieces: readonly Buffer[], memory: readonly Chunk[]): WireText {
  return longText(pieces, memory) ?? copied(pieces, memory, bytes => bytes.toString('utf8'));
}

/** As `wireText`; undefined where something is no UTF-8. */
export function strictText(pieces: readonly Buffer[], memory: readonly Chunk[]): WireText | undefined {
  const read = (bytes: Buffer) => (isUtf8(bytes) ? bytes.toString('utf8') : undefined);
  return longText(pieces, memory) ?? copied(pieces, memory, read);
}

/** A text has another user. */
export function retain(text: WireText): void {
  if (typeof text !== 'string') text.retain();
}

/** One of its users is done with a text. */
export function release(text: WireText): void {
  if (typeof text !== 'string') text.release();
}

function longText(pieces: readonly Buffer[], memory: readonly Chunk[]): LongText | undefined {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (length < LONG_BYTES || !pieces.every(isAscii)) return undefined;
  if (pieces.length * PIECE_BYTES <= length) return new LongText(pieces, length, memory);
  return copied(pieces, memory, bytes => new LongText([bytes], length));
}

/** What is made of a copy of the bytes; their memory is done with. */
function copied<T>(pieces: readonly Buffer[], memory: readonly Chunk[], copy: (bytes: Buffer) => T): T {
  const made = copy(join(pieces));
  for (const chunk of memory) chunk.release();
  return made;
}

function join(pieces: readonly Buffer[]): Buffer {
  const [first] = pieces;
  return first && pieces.length === 1 ? first : Buffer.concat(pieces);
}

/** In UTF-8. */
export function byteLength(text: WireText): number {
  return typeof text === 'string' ? Buffer.byteLength(text) : text.length;
}

/** The text with each edit's span replaced; spans must not overlap. */
export function editText(text: WireText, edits: Edit[]): WireText {
  return typeof text === 'string' ? applyEdits(text, edits) : text.edit(edits);
}

export function joinLines(text: WireText): WireText {
  return typeof text === 'string' ? onOneLine(text) : text.joinLines();
}

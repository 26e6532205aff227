import { JsonStrings } from './json-strings.ts';
import { type Member, readKey } from './json-text.ts';

/** A member of an object among bytes; `members` where it is one of those that were asked for. */
export interface ByteMember extends Member {
  members?: readonly ByteMember[];
}

const QUOTE = 0x22;
const BRACE = 0x7b;
const BRACE_END = 0x7d;
const BRACKET = 0x5b;
const BRACKET_END = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;
const MINUS = 0x2d;
const PLUS = 0x2b;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const LITERALS = ['true', 'false', 'null'].map(word => Buffer.from(word));
/** Deeper ones are left to a parser that does not recurse. */
const DEPTH_MAX = 200;

/**
 * Members of the object that these ASCII bytes are, with the members of those objects below it whose key `descend`
 * names. It reads all of it and keeps nothing: JSON.parse of a long text leaves two long strings to the collector.
 * @returns undefined where they are no JSON object, or may be none: whoever wants to know why asks JSON.parse
 */
export function skim(bytes: Buffer, descend: ReadonlySet<string>): ByteMember[] | undefined {
  const reader = new Reader(bytes, descend);
  const start = reader.blank(0);
  if (bytes[start] !== BRACE) return undefined;
  const members: ByteMember[] = [];
  const end = reader.object(start, 0, members);
  return end > 0 && reader.blank(end) === bytes.length ? members : undefined;
}

/** Its methods take the index where something begins, and return that behind its end; -1 where it is none. */
class Reader {
  readonly #bytes: Buffer;
  readonly #descend: ReadonlySet<string>;
  readonly #strings: JsonStrings;

  constructor(bytes: Buffer, descend: ReadonlySet<string>) {
    this.#bytes = bytes;
    this.#descend = descend;
    this.#strings = new JsonStrings(bytes);
  }

  blank(from: number): number {
    const bytes = this.#bytes;
    let at = from;
    for (;;) {
      const code = bytes[at];
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return at;
      at += 1;
    }
  }

  /** Puts its members into `members`, if there is such a list. */
  object(from: number, depth: number, members: ByteMember[] | undefined): number {
    if (depth > DEPTH_MAX) return -1;
    const bytes = this.#bytes;
    let at = this.blank(from + 1);
    if (bytes[at] === BRACE_END) return at + 1;
    for (;;) {
      if (bytes[at] !== QUOTE) return -1;
      const keyStart = at;
      const keyEnd = this.#strings.end(at);
      at = keyEnd < 0 ? -1 : this.blank(keyEnd);
      if (at < 0 || bytes[at] !== COLON) return -1;
      const start = this.blank(at + 1);
      const key = members && readKey(bytes.toString('latin1', keyStart + 1, keyEnd - 1));
      const below: ByteMember[] | undefined =
        key !== undefined && bytes[start] === BRACE && this.#descend.has(key) ? [] : undefined;
      const end = below ? this.object(start, depth + 1, below) : this.#value(start, depth + 1);
      if (end < 0) return -1;
      if (members && key !== undefined)
        members.push({ key, keyStart, start, end, ...(below ? { members: below } : {}) });
      at = this.blank(end);
      if (bytes[at] === BRACE_END) return at + 1;
      if (bytes[at] !== COMMA) return -1;
      at = this.blank(at + 1);
    }
  }

  #value(at: number, depth: number): number {
    const code = this.#bytes[at] ?? -1;
    if (code === QUOTE) return this.#strings.end(at);
    if (code === BRACE) return this.object(at, depth, undefined);
    if (code === BRACKET) return this.#array(at, depth);
    if (code === MINUS || isDigit(code)) return this.#number(at);
    return this.#literal(
      at,
      LITERALS.find(({ 0: first }) => first === code),
    );
  }

  #literal(at: number, word: Buffer | undefined): number {
    if (!word) return -1;
    for (let i = 1; i < word.length; i += 1) if (this.#bytes[at + i] !== word[i]) return -1;
    return at + word.length;
  }

  #array(from: number, depth: number): number {
    if (depth > DEPTH_MAX) return -1;
    const bytes = this.#bytes;
    let at = this.blank(from + 1);
    if (bytes[at] === BRACKET_END) return at + 1;
    for (;;) {
      const end = this.#value(at, depth + 1);
      if (end < 0) return -1;
      at = this.blank(end);
      if (bytes[at] === BRACKET_END) return at + 1;
      if (bytes[at] !== COMMA) return -1;
      at = this.blank(at + 1);
    }
  }

  #number(from: number): number {
    const bytes = this.#bytes;
    let at = bytes[from] === MINUS ? from + 1 : from;
    at = bytes[at] === ZERO ? at + 1 : this.#digits(at);
    if (at > 0 && bytes[at] === POINT) at = this.#digits(at + 1);
    // An `E` is 0x45, an `e` 0x65.
    if (at < 0 || ((bytes[at] ?? 0) | 0x20) !== 0x65) return at;
    const sign = bytes[at + 1];
    return this.#digits(sign === MINUS || sign === PLUS ? at + 2 : at + 1);
  }

  /** At least one. */
  #digits(from: number): number {
    let at = from;
    while (isDigit(this.#bytes[at] ?? 0)) at += 1;
    return at === from ? -1 : at;
  }
}

function isDigit(code: number): boolean {
  return code >= ZERO && code <= NINE;
}

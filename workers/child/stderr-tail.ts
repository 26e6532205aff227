import { stripVTControlCharacters } from 'node:util';
import { createLineReader } from '../line-reader.ts';

interface StderrTailOptions {
  onLine?: (line: string) => void;
}

const LINES = 100;
const BYTES = 64 * 1024;
const LINE_BYTES = 4096;
/** Node ends what it says of an error that nobody caught with its own version. */
const NODE_VERSION = /^Node\.js v\d/;
const ERROR_LINE = /^\w*Error\b/;
/** C0 and C1 controls and the Unicode ones that turn the direction of text: all that could forge a log or a terminal. */
const CONTROLS = /[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

/** The last lines of a server's stderr, fit to be shown: bounded, without colours and control characters. */
export class StderrTail {
  readonly #lines: string[] = [];
  readonly #read: (chunk: Buffer) => void;
  readonly #onLine: ((line: string) => void) | undefined;
  #size = 0;

  constructor({ onLine }: StderrTailOptions = {}) {
    this.#onLine = onLine;
    const keep = (line: string) => this.add(line);
    this.#read = createLineReader({
      maxBytes: LINE_BYTES,
      onLine: line => keep(line.toString()),
      onTooLong: head => keep(`${head}…`),
    });
  }

  get lines(): string[] {
    return [...this.#lines];
  }

  /** The line that tells most of an end: the last one, or the error before it where that is only Node's version. */
  get last(): string | undefined {
    const last = this.#lines.at(-1);
    if (last === undefined || !NODE_VERSION.test(last)) return last;
    return this.#lines.findLast(line => ERROR_LINE.test(line)) ?? last;
  }

  write(chunk: Buffer): void {
    this.#read(chunk);
  }

  /** Takes in what came last without a newline: often the very words that tell why a server ended. */
  flush(): void {
    this.#read(Buffer.from('\n'));
  }

  /** Takes in one whole line. */
  add(line: string): void {
    const clean = stripVTControlCharacters(line).replace(CONTROLS, ' ').trimEnd();
    if (clean === '') return;
    this.#lines.push(clean);
    this.#size += clean.length;
    while (this.#lines.length > LINES || this.#size > BYTES) this.#size -= this.#lines.shift()?.length ?? 0;
    this.#onLine?.(clean);
  }
}

/** Ids have ten digits, so that the next call is written over the last one. */
const FIRST_ID = 1_000_000_000;
const ID_LENGTH = 10;
const TEXT_FIELD = Buffer.from('"text":"');

let ids = FIRST_ID;

/** A `tools/call` of `echo`, always the same bytes but for its id and a tag, and what its answer must hold. */
export class ToolCall {
  /** JSON-RPC message. */
  readonly bytes: Buffer;
  id = 0;
  readonly #idAt: number;
  readonly #tagAt: number;
  readonly #text: Buffer;

  /** `size`: length of the message that is echoed; `delay`: ms that the tool takes. */
  constructor(size: number, delay = 0) {
    const digits = '0'.repeat(ID_LENGTH);
    const message = digits.padEnd(size, 'x');
    const args = { message, ...(delay > 0 ? { delay } : {}) };
    const head = '{"jsonrpc":"2.0","id":';
    const text = `${head}${digits},"method":"tools/call","params":${JSON.stringify({ name: 'echo', arguments: args })}}`;
    this.bytes = Buffer.from(text);
    this.#idAt = head.length;
    this.#tagAt = text.indexOf('"message":"') + '"message":"'.length;
    this.#text = Buffer.from(`Echo: ${message}"`);
  }

  /** Makes it another call. */
  renew(): Buffer {
    ids += 1;
    this.id = ids;
    const digits = String(ids);
    this.bytes.write(digits, this.#idAt, 'latin1');
    this.bytes.write(digits, this.#tagAt, 'latin1');
    this.#text.write(digits, 'Echo: '.length, 'latin1');
    return this.bytes;
  }

  /** @throws Error unless the answer is this call's, with all of its text */
  check(answer: Buffer): void {
    const at = answer.indexOf(TEXT_FIELD) + TEXT_FIELD.length;
    const right = this.#text.equals(answer.subarray(at, at + this.#text.length));
    if (right && answer.includes(`"id":${this.id}`, 0, 'latin1')) return;
    throw new Error(`the answer is not that of call ${this.id}: ${answer.toString('utf8', 0, 300)}`);
  }
}

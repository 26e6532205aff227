/** Less than this V8 collects at no cost that could be seen. */
const WORTH_BYTES = 4 * 1024;

/**
 * The memory of one read, shared by what was cut out of it, and given back when the last of its users is done. V8 would
 * find out in its next full collection, which it makes for each 64 MB of such memory: a quarter of the time of calls of
 * 64 KB. What nobody releases is left to V8, as ever; what is used after its release would be empty (see `isGone`).
 */
export class Chunk {
  readonly #bytes: Buffer;
  #users = 1;

  /** The bytes become the chunk's own, and whoever makes it is its first user. */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isGone(): boolean {
    return this.#users <= 0;
  }

  retain(): this {
    this.#users += 1;
    return this;
  }

  release(): void {
    this.#users -= 1;
    if (this.#users > 0 || this.#bytes.length < WORTH_BYTES) return;
    const { buffer } = this.#bytes;
    // Node keeps small buffers together in large ones, which others use too.
    if (buffer instanceof ArrayBuffer && buffer.byteLength === this.#bytes.length) buffer.transfer(0);
  }
}

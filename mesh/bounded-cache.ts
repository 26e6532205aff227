interface Kept<V> {
  value: V;
  weight: number;
}

/**
 * A cache with a bound on the weight of all that it keeps (items, bytes: whatever `set` counts). What was used lately
 * stays: entries live in two generations, a look-up moves one into the young, and when that holds half of the bound it
 * becomes the old one, whose rest is dropped as a whole. Every step takes constant time, whoever chooses the keys.
 */
export class BoundedCache<K, V> {
  readonly #half: number;
  #young = new Map<K, Kept<V>>();
  #old = new Map<K, Kept<V>>();
  #weight = 0;

  constructor(maxWeight: number) {
    this.#half = maxWeight / 2;
  }

  get(key: K): V | undefined {
    const young = this.#young.get(key);
    if (young) return young.value;
    const old = this.#old.get(key);
    if (!old) return undefined;
    this.set(key, old.value, old.weight);
    return old.value;
  }

  /** Something heavier than half of the bound is not kept. */
  set(key: K, value: V, weight = 1): void {
    this.delete(key);
    if (weight > this.#half) return;
    if (this.#weight + weight > this.#half) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#weight = 0;
    }
    this.#young.set(key, { value, weight });
    this.#weight += weight;
  }

  delete(key: K): void {
    this.#weight -= this.#young.get(key)?.weight ?? 0;
    this.#young.delete(key);
    this.#old.delete(key);
  }

  /** Entries kept now. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }
}

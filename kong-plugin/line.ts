import { isSameList } from './table.ts';

interface LineOptions<T> {
  /** How long something is kept that Consul no longer says, in ms. */
  graceMs: number;
  keyOf(item: T): string;
  /** Whether it is worth keeping when Consul may have lost it. */
  isGood(item: T): boolean;
  /** Whether it says something of its own, and not only that Consul knows no more. */
  isTelling(item: T): boolean;
}

interface Kept<T> {
  item: T;
  /** By performance.now(). */
  until: number;
}

/**
 * What one blocking query of Consul says, and how far it is believed. On an unbroken line all of it is, at once. After
 * an interruption Consul may have lost its data (a restarted dev agent, a new volume) and be told anew by the workers,
 * one after the other: what was good before and is missing now is kept for a grace period, each item until it is seen
 * again. An agent that restarts knows its services again, but no result of their checks: these are kept, too.
 */
export class Line<T> {
  readonly #options: LineOptions<T>;
  readonly #kept = new Map<string, Kept<T>>();
  #latest: T[];
  #shown: T[];
  #broken = false;

  constructor(options: LineOptions<T>, initial: T[] = []) {
    this.#options = options;
    this.#latest = initial;
    this.#shown = initial;
  }

  /** Sorted by key; the same array while it has the same items. */
  get shown(): T[] {
    return this.#shown;
  }

  /** Something is shown that Consul does not say. */
  get isDoubtful(): boolean {
    return this.#kept.size > 0;
  }

  /** Consul's last word was an error. */
  get isBroken(): boolean {
    return this.#broken;
  }

  /** When the next kept item is to be believed gone, by performance.now(); Infinity: none is kept. */
  get nextExpiry(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const { until } of this.#kept.values()) next = Math.min(next, until);
    return next;
  }

  /** Consul could not be read: its next answer is doubted. */
  break(): void {
    this.#broken = true;
  }

  /** From now on what is shown is kept for the grace period, unless an answer has it. */
  doubt(now: number): void {
    for (const item of this.#shown) this.#keep(item, now);
  }

  /** Takes Consul's answer, sorted by key; returns whether it is the first after an interruption. */
  answer(items: T[], now: number): boolean {
    const wasBroken = this.#broken;
    if (wasBroken) this.doubt(now);
    this.#broken = false;
    const { keyOf, isTelling } = this.#options;
    const silent = new Set(items.filter(item => !isTelling(item)).map(keyOf));
    for (const item of this.#shown) if (silent.has(keyOf(item))) this.#keep(item, now);
    if (this.isDoubtful) for (const item of items) if (isTelling(item)) this.#kept.delete(keyOf(item));
    this.#latest = items;
    this.#compose();
    return wasBroken;
  }

  /** Takes an answer that something else has to confirm: until then it changes nothing that is shown. */
  note(items: T[]): void {
    this.#latest = items;
  }

  /** Believes gone what was kept long enough. */
  expire(now: number): void {
    if (this.nextExpiry > now) return;
    for (const [key, { until }] of this.#kept) if (until <= now) this.#kept.delete(key);
    this.#compose();
  }

  /** The time of one that is kept already goes on: errors again and again must not keep it for ever. */
  #keep(item: T, now: number): void {
    const { keyOf, isGood, graceMs } = this.#options;
    const key = keyOf(item);
    if (isGood(item) && !this.#kept.has(key)) this.#kept.set(key, { item, until: now + graceMs });
  }

  #compose(): void {
    const { keyOf } = this.#options;
    const all = [...this.#kept.values()].map(({ item }) => item);
    if (all.length > 0) {
      all.push(...this.#latest.filter(item => !this.#kept.has(keyOf(item))));
      all.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
    }
    const shown = all.length > 0 ? all : this.#latest;
    if (!isSameList(this.#shown, shown)) this.#shown = shown;
  }
}

import { HOP_BY_HOP } from '../../mesh/hop-by-hop.ts';

/** Header lines in order, duplicates kept, names compared without case. Values are bytes as latin1, as Node has them. */
export class HeaderList {
  #lines: [name: string, value: string][];

  /** @param raw names and values in turn, as in `IncomingMessage.rawHeaders`. */
  constructor(raw: readonly string[] = []) {
    this.#lines = Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i] ?? '', raw[2 * i + 1] ?? '']);
  }

  get size(): number {
    return this.#lines.length;
  }

  /** The first value, as kong.*.get_header gives it. */
  get(name: string): string | undefined {
    return this.all(name)[0];
  }

  all(name: string): string[] {
    const wanted = name.toLowerCase();
    return this.#lines.filter(([line]) => line.toLowerCase() === wanted).map(([, value]) => value);
  }

  /** Replaces every line of the name; an array gives one line a value. */
  set(name: string, value: string | readonly string[]): void {
    this.clear(name);
    for (const item of typeof value === 'string' ? [value] : value) this.#lines.push([name, item]);
  }

  clear(name: string): void {
    const wanted = name.toLowerCase();
    this.#lines = this.#lines.filter(([line]) => line.toLowerCase() !== wanted);
  }

  /** Lower-case name → value, or values when there are several: ngx.req.get_headers of the first `max` lines. */
  table(max = Number.POSITIVE_INFINITY): Record<string, string | string[]> {
    const table: Record<string, string | string[]> = Object.create(null);
    for (const [line, value] of this.#lines.slice(0, max)) {
      const name = line.toLowerCase();
      const before = table[name];
      if (before === undefined) table[name] = value;
      else table[name] = Array.isArray(before) ? [...before, value] : [before, value];
    }
    return table;
  }

  /** Names and values in turn, without the hop-by-hop headers (RFC 9110 §7.6.1) and those that Connection names. */
  forwardable(): string[] {
    const named = this.all('connection').flatMap(value => value.split(','));
    const dropped = new Set([...HOP_BY_HOP, ...named.map(name => name.trim().toLowerCase())]);
    return this.#lines.filter(([name]) => !dropped.has(name.toLowerCase())).flat();
  }

  /** Names and values in turn, as node:http takes them. */
  raw(): string[] {
    return this.#lines.flat();
  }

  /** Size on the wire in bytes. */
  get byteLength(): number {
    return this.#lines.reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
  }
}

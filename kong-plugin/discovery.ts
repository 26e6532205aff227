import type { Consul, Instance, Watch } from '../mesh/consul.ts';
import { isUnchecked } from '../mesh/consul-watch.ts';
import { CONSUL_TAG } from '../mesh/names.ts';
import { Line } from './line.ts';
import { type KnownService, Table } from './table.ts';
import type { TableFile } from './table-file.ts';

export type { KnownService };

export interface Discovery {
  /**
   * Resolves when Consul has said all that it has, or, with a table from disk, at its first error; `ms` after
   * discovery began at the latest, so that a Consul that never answers delays the first requests only.
   */
  ready(ms: number): Promise<void>;
  find(name: string): KnownService | undefined;
  /** Sorted by name. */
  list(): KnownService[];
  /**
   * Seconds since Consul last answered, changed or not, of what was answered longest ago; `now` in epoch ms. Up to 33
   * while all is well (blocking queries). Before the first answer: of the table on disk, or since discovery
   * began.
   */
  age(now: number): number;
  close(): void;
}

interface DiscoveryOptions {
  consul: Consul;
  /** Called with the ids of all instances when any of them has changed, and before `ready` resolves. */
  onInstances(ids: ReadonlySet<string>): void;
  /** Called when Consul cannot be read; the last table stays in use. */
  onError(error: Error): void;
  /** Called when Consul can be read again, all of it. */
  onRecover?(): void;
  /** Where the table outlasts this process. */
  file?: TableFile | undefined;
  /** How long a Consul that may have lost its data has until it is believed: longer than a worker's TTL of 15 s. */
  graceMs?: number;
}

/** One service of Consul's. */
interface Entry {
  line: Line<Instance>;
  /** undefined: known from disk only, or from before Consul lost it. */
  watch: Watch | undefined;
  answered: boolean;
  /** Epoch ms: how old what is known of it is while its watch has not answered. */
  since: number;
}

type Definition = [name: string, value: unknown];

const GRACE_MS = 30_000;
/** An agent that forgets all of its services does it one after the other. */
const FORGETTING_MS = 2000;

/**
 * Follows Consul by blocking queries and answers from memory. A service is known by its definition, by its instances,
 * or by both: one without instances is still a service. What is known outlives every failure of Consul.
 */
export function createDiscovery(options: DiscoveryOptions): Discovery {
  return new ConsulDiscovery(options);
}

class ConsulDiscovery implements Discovery {
  readonly #options: DiscoveryOptions;
  readonly #startedAt = performance.now();
  readonly #announced = Promise.withResolvers<void>();
  readonly #entries = new Map<string, Entry>();
  readonly #definitions: Line<Definition>;
  readonly #table = new Table();
  readonly #fromDisk: boolean;
  /** Epoch ms: how old what is known is while Consul has not answered. */
  readonly #since: number;
  readonly #catalogue: Watch;
  readonly #keys: Watch;
  /** Consul's names of the mesh's services; undefined before the first answer. */
  #wanted: ReadonlySet<string> | undefined;
  #catalogueBroken = false;
  #definitionsAnswered = false;
  #complete = false;
  #instances = 0;
  /** When there was more than one instance, by performance.now(). */
  #crowdedAt = Number.NEGATIVE_INFINITY;
  #flush: NodeJS.Immediate | undefined;
  #expiry: NodeJS.Timeout | undefined;

  constructor(options: DiscoveryOptions) {
    this.#options = options;
    const saved = options.file?.load();
    this.#fromDisk = saved !== undefined;
    this.#since = saved?.answeredAt ?? Date.now();
    this.#definitions = new Line(
      { graceMs: this.#graceMs, keyOf: ([name]) => name, isGood: () => true, isTelling: () => true },
      [...(saved?.definitions ?? [])],
    );
    for (const [service, instances] of saved?.services ?? []) this.#enter(service, instances, this.#since);
    this.#table.setDefinitions(new Map(this.#definitions.shown));
    if (saved) this.#changed();
    const { consul } = options;
    this.#catalogue = consul.watchServices(
      services => this.#onServices(services),
      error => {
        this.#catalogueBroken = true;
        this.#onError(error);
      },
    );
    this.#keys = consul.watchDefinitions(
      definitions => this.#onDefinitions(definitions),
      error => {
        this.#definitions.break();
        this.#onError(error);
      },
    );
  }

  async ready(ms: number): Promise<void> {
    // Every request asks: only the first ones after a start have anything to wait for.
    const left = this.#startedAt + ms - performance.now();
    if (this.#complete || left <= 0) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, left);
    });
    await Promise.race([this.#announced.promise, late]);
    clearTimeout(timer);
  }

  find(name: string): KnownService | undefined {
    return this.#table.find(name);
  }

  list(): KnownService[] {
    return this.#table.list();
  }

  age(now: number): number {
    let oldest = Math.min(
      this.#catalogue.answeredAt() || this.#since,
      this.#keys.answeredAt() || this.#since,
    );
    for (const { watch, since } of this.#entries.values()) {
      if (watch) oldest = Math.min(oldest, watch.answeredAt() || since);
    }
    return Math.max(0, now - oldest) / 1000;
  }

  close(): void {
    clearImmediate(this.#flush);
    clearTimeout(this.#expiry);
    for (const { watch } of this.#entries.values()) watch?.close();
    this.#catalogue.close();
    this.#keys.close();
    this.#options.file?.close();
  }

  get #graceMs(): number {
    return this.#options.graceMs ?? GRACE_MS;
  }

  #enter(service: string, instances: Instance[], since: number): Entry {
    const line = new Line<Instance>(
      {
        graceMs: this.#graceMs,
        keyOf: ({ id }) => id,
        isGood: ({ status }) => status === 'passing',
        isTelling: instance => !isUnchecked(instance),
      },
      instances,
    );
    const entry: Entry = { line, watch: undefined, answered: false, since };
    this.#entries.set(service, entry);
    this.#table.setInstances(service, instances);
    return entry;
  }

  #onServices(services: ReadonlyMap<string, readonly string[]>): void {
    const now = performance.now();
    const wanted = new Set(
      [...services].filter(([, tags]) => tags.includes(CONSUL_TAG)).map(([name]) => name),
    );
    // The only instance of all may leave as any other; more than one at once have been lost.
    const first = this.#wanted === undefined;
    const crowded = this.#instances > 1 || now - this.#crowdedAt < FORGETTING_MS;
    const wasBroken = this.#catalogueBroken;
    this.#catalogueBroken = false;
    const doubtful = wasBroken || (wanted.size === 0 && (first || crowded));
    if (doubtful) for (const { line } of this.#entries.values()) line.doubt(now);
    this.#wanted = wanted;
    for (const service of wanted) this.#follow(service);
    this.#recovered(wasBroken);
    this.#changed();
  }

  #follow(service: string): void {
    const entry = this.#entries.get(service) ?? this.#enter(service, [], Date.now());
    entry.watch ??= this.#options.consul.watchInstances(
      service,
      instances => this.#onInstances(service, entry, instances),
      error => {
        entry.line.break();
        this.#onError(error);
      },
    );
  }

  #onInstances(service: string, entry: Entry, instances: Instance[]): void {
    const { line } = entry;
    entry.answered = true;
    // That all of a service is gone is for the catalogue to say: it knows whether everything is.
    if (instances.length === 0 && !line.isBroken) line.note(instances);
    else this.#recovered(line.answer(instances, performance.now()));
    this.#table.setInstances(service, line.shown);
    this.#changed();
  }

  #onDefinitions(definitions: ReadonlyMap<string, unknown>): void {
    const now = performance.now();
    const line = this.#definitions;
    if (definitions.size === 0 && line.shown.length > 1) line.doubt(now);
    this.#recovered(line.answer([...definitions], now));
    this.#definitionsAnswered = true;
    this.#table.setDefinitions(new Map(line.shown));
    this.#changed();
  }

  #onError(error: Error): void {
    if (this.#fromDisk) this.#announce();
    this.#options.onError(error);
  }

  #recovered(wasBroken: boolean): void {
    const lines = [this.#definitions, ...[...this.#entries.values()].map(({ line }) => line)];
    if (wasBroken && !this.#catalogueBroken && lines.every(line => !line.isBroken))
      this.#options.onRecover?.();
  }

  /** Answers come in bursts: what follows from them is done once for all that came in one turn. */
  #changed(): void {
    this.#flush ??= setImmediate(() => {
      this.#flush = undefined;
      this.#settle();
    });
  }

  #settle(): void {
    const now = performance.now();
    this.#forget();
    const ids = new Set([...this.#entries.values()].flatMap(({ line }) => line.shown.map(({ id }) => id)));
    if (this.#instances > 1) this.#crowdedAt = now;
    this.#instances = ids.size;
    this.#expireLater(now);
    this.#options.onInstances(ids);
    this.#options.file?.save(() => ({
      answeredAt: Math.round(Date.now() - this.age(Date.now()) * 1000),
      definitions: new Map(this.#definitions.shown),
      services: new Map([...this.#entries].map(([service, { line }]) => [service, line.shown])),
    }));
    const known = [...this.#entries.values()].every(({ answered, watch }) => answered || !watch);
    if (this.#wanted && this.#definitionsAnswered && known) this.#announce();
  }

  #announce(): void {
    this.#complete = true;
    this.#announced.resolve();
  }

  #forget(): void {
    for (const [service, { line, watch }] of this.#entries) {
      if (this.#wanted === undefined || this.#wanted.has(service) || line.isDoubtful) continue;
      watch?.close();
      this.#entries.delete(service);
      this.#table.setInstances(service, []);
    }
  }

  #expireLater(now: number): void {
    clearTimeout(this.#expiry);
    const lines = [this.#definitions, ...[...this.#entries.values()].map(({ line }) => line)];
    const next = Math.min(...lines.map(line => line.nextExpiry));
    if (!Number.isFinite(next)) return;
    this.#expiry = setTimeout(() => this.#expire(), Math.max(0, next - now) + 1).unref();
  }

  #expire(): void {
    const now = performance.now();
    this.#definitions.expire(now);
    this.#table.setDefinitions(new Map(this.#definitions.shown));
    for (const [service, { line }] of this.#entries) {
      line.expire(now);
      this.#table.setInstances(service, line.shown);
    }
    this.#changed();
  }
}

import type { Logger } from 'pino';
import type { Era } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import { withoutLastWords } from '../mesh/last-words.ts';
import type { Service } from '../mesh/registry.ts';
import { StderrTail } from './child/stderr-tail.ts';
import { type ClientProfile, Connection, type ConnectionHandlers } from './connection.ts';

interface PoolOptions {
  service: Service;
  log: Logger;
  handshakeTimeoutMs: number;
}

/** A server for one call alone: whatever it says meanwhile belongs to that call. */
export interface Lease {
  connection: Connection;
  /**
   * Ends the server. It is not used again: what it still has to say, a late log or question, must not reach the
   * next client.
   */
  release(): void;
}

interface Held {
  connection: Connection;
  watched: () => boolean;
  handlers: { current: ConnectionHandlers };
  lastUsed: number;
}

interface Wanted {
  prefer: Era;
  /** Whether its client would notice if the server went: it has a stream open. */
  watched?: () => boolean;
  client?: ClientProfile;
  handlers: ConnectionHandlers;
}

const SWEEP_MS = 10_000;
const RETRY_AFTER_MS = 1000;
/** A session that was used more lately than this is not taken from its client, even when the pool is full. */
const UNUSED_MS = 1000;
const NO_HANDLERS: ConnectionHandlers = { onNotification: () => {} };

/** Servers that are not shared: one for each legacy session, and one for each call that belongs to no session. */
export class ServerPool {
  readonly #options: PoolOptions;
  readonly #spares: Held[] = [];
  /** By key: session ids, or `lease:<n>`. */
  readonly #held = new Map<string, Held>();
  readonly #sweeper: NodeJS.Timeout;
  readonly #stderr = new StderrTail();
  #leases = 0;
  #stopped = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS).unref();
  }

  /** Servers in use or waiting, spares included. */
  get size(): number {
    return this.#held.size + this.#spares.length;
  }

  get inFlight(): number {
    let sum = 0;
    for (const { connection } of this.#held.values()) sum += connection.inFlight;
    return sum;
  }

  /** The last lines of stderr of all its servers, as they came. */
  stderrTail(): string[] {
    return this.#stderr.lines;
  }

  /** Starts the spares. */
  warm(): void {
    while (!this.#stopped && this.#spares.length < this.#options.service.pool.spares && this.#hasRoom()) {
      this.#spares.push(this.#spawn());
    }
  }

  /** The server of a session, if this worker holds it. */
  get(key: string): Connection | undefined {
    const held = this.#held.get(key);
    if (held) held.lastUsed = Date.now();
    return held?.connection;
  }

  /** Opens a server under its key. @throws MeshError `queue_full`, and as `Connection.shakeHands` */
  async open(key: string, { prefer, client, handlers, watched = () => false }: Wanted): Promise<Connection> {
    const held = this.#spares.shift() ?? this.#spawnWithinLimit();
    held.handlers.current = handlers;
    held.watched = watched;
    held.lastUsed = Date.now();
    this.#held.set(key, held);
    this.warm();
    try {
      const timeoutMs = this.#options.handshakeTimeoutMs;
      await held.connection.shakeHands({ prefer, timeoutMs, ...(client ? { client } : {}) });
      return held.connection;
    } catch (error) {
      this.close(key);
      throw error;
    }
  }

  /** A server for one call. @throws MeshError as `open` */
  async lease(wanted: Wanted): Promise<Lease> {
    this.#leases += 1;
    const key = `lease:${this.#leases}`;
    const connection = await this.open(key, wanted);
    return { connection, release: () => this.close(key) };
  }

  /** Ends a server. */
  close(key: string): void {
    const held = this.#held.get(key);
    this.#held.delete(key);
    if (held) void held.connection.stop();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#sweeper);
    const all = [...this.#held.values(), ...this.#spares.splice(0)];
    this.#held.clear();
    await Promise.all(all.map(({ connection }) => connection.stop()));
  }

  #spawnWithinLimit(): Held {
    if (!this.#hasRoom()) this.#evict();
    if (this.#hasRoom()) return this.#spawn();
    const detail = `all ${this.#options.service.pool.max} servers of this worker are taken (pool.max)`;
    throw new MeshError('queue_full', { detail, delivered: 'no', retryAfterMs: RETRY_AFTER_MS });
  }

  #spawn(): Held {
    const handlers = { current: NO_HANDLERS };
    const { service, log } = this.#options;
    const connection: Connection = new Connection({
      service,
      log,
      exclusive: true,
      onStderr: line => this.#stderr.add(line),
      onNotification: notification => handlers.current.onNotification(notification),
      onRequest: (request, withdrawn) =>
        handlers.current.onRequest?.(request, withdrawn) ??
        Promise.reject(new Error(`${request.method} has no taker`)),
      onExit: exit => {
        this.#stderr.add(`mcp-mesh: a server is over: ${withoutLastWords(exit.reason)}`);
        if (!this.#stopped) log.info({ reason: withoutLastWords(exit.reason) }, 'a server of the pool ended');
        this.#drop(connection);
      },
    });
    return { connection, handlers, watched: () => false, lastUsed: Date.now() };
  }

  /** Many clients leave without a word: the one that was unused for the longest time makes room. */
  #evict(): void {
    let oldest: [string, Held] | undefined;
    for (const [key, held] of this.#held) {
      if (held.connection.inFlight > 0 || held.watched()) continue;
      if (!oldest || held.lastUsed < oldest[1].lastUsed) oldest = [key, held];
    }
    if (oldest && Date.now() - oldest[1].lastUsed >= UNUSED_MS) this.close(oldest[0]);
  }

  #hasRoom(): boolean {
    return this.size < this.#options.service.pool.max;
  }

  #drop(connection: Connection): void {
    const spare = this.#spares.findIndex(held => held.connection === connection);
    if (spare >= 0) this.#spares.splice(spare, 1);
    const key = this.#held.entries().find(([, held]) => held.connection === connection)?.[0];
    if (key !== undefined) this.#held.delete(key);
  }

  #sweep(): void {
    const oldest = Date.now() - this.#options.service.pool.idle_s * 1000;
    for (const [key, { connection, lastUsed }] of this.#held) {
      if (lastUsed < oldest && connection.inFlight === 0) this.close(key);
    }
  }
}

import type { Logger } from 'pino';
import type { Era } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import type { Service } from '../mesh/registry.ts';
import { type ClientProfile, Connection, type ConnectionHandlers, shortReason } from './connection.ts';

interface PoolOptions {
  service: Service;
  log: Logger;
  handshakeTimeoutMs: number;
}

/** A server for one call at a time: whatever it says meanwhile belongs to that call. */
export interface Lease {
  connection: Connection;
  /** Gives it back; `reusable` is false when it may still be busy with the call. */
  release(reusable: boolean): void;
}

interface Held {
  connection: Connection;
  handlers: { current: ConnectionHandlers };
  lastUsed: number;
}

interface Wanted {
  prefer: Era;
  client?: ClientProfile;
  handlers: ConnectionHandlers;
}

const SWEEP_MS = 10_000;
const RETRY_AFTER_MS = 1000;
const NO_HANDLERS: ConnectionHandlers = { onNotification: () => {} };

/** Servers that are not shared: one for each legacy session, or one for each call of a modern client. */
export class ServerPool {
  readonly #options: PoolOptions;
  readonly #spares: Held[] = [];
  /** By key: session ids, or `lease:<n>`. */
  readonly #held = new Map<string, Held>();
  /** Servers between two calls, by principal. */
  readonly #idle = new Map<string, string[]>();
  readonly #sweeper: NodeJS.Timeout;
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
    return this.#held.values().reduce((sum, { connection }) => sum + connection.inFlight, 0);
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

  /** Opens the server of a session under its key. @throws MeshError `queue_full`, and as `Connection.shakeHands` */
  async open(key: string, wanted: Wanted): Promise<Connection> {
    return (await this.#take(key, wanted)).connection;
  }

  /** A server of the principal's, or a new one, for one call. @throws MeshError as `open` */
  async lease(principal: string, wanted: Wanted): Promise<Lease> {
    const waiting = this.#idle.get(principal)?.pop();
    const key = waiting ?? `lease:${++this.#leases}`;
    const held = this.#held.get(key) ?? (await this.#take(key, wanted));
    held.handlers.current = wanted.handlers;
    held.lastUsed = Date.now();
    return {
      connection: held.connection,
      release: reusable => {
        held.handlers.current = NO_HANDLERS;
        held.lastUsed = Date.now();
        if (!reusable) this.close(key);
        else if (this.#held.has(key)) this.#idle.set(principal, [...(this.#idle.get(principal) ?? []), key]);
      },
    };
  }

  /** Ends a server. */
  close(key: string): void {
    const held = this.#held.get(key);
    this.#forget(key);
    if (held) void held.connection.stop();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#sweeper);
    const all = [...this.#held.values(), ...this.#spares.splice(0)];
    this.#held.clear();
    await Promise.all(all.map(({ connection }) => connection.stop()));
  }

  async #take(key: string, { prefer, client, handlers }: Wanted): Promise<Held> {
    const held = this.#spares.shift() ?? this.#spawnWithinLimit();
    held.handlers.current = handlers;
    this.#held.set(key, held);
    this.warm();
    try {
      const timeoutMs = this.#options.handshakeTimeoutMs;
      await held.connection.shakeHands({ prefer, timeoutMs, ...(client ? { client } : {}) });
      return held;
    } catch (error) {
      this.close(key);
      throw error;
    }
  }

  #spawnWithinLimit(): Held {
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
      onNotification: notification => handlers.current.onNotification(notification),
      onRequest: (request, withdrawn) =>
        handlers.current.onRequest?.(request, withdrawn) ??
        Promise.reject(new Error(`${request.method} has no taker`)),
      onExit: exit => {
        if (!this.#stopped) log.info({ reason: shortReason(exit.reason) }, 'a server of the pool ended');
        this.#drop(connection);
      },
    });
    return { connection, handlers, lastUsed: Date.now() };
  }

  #hasRoom(): boolean {
    if (this.size < this.#options.service.pool.max) return true;
    const idle = this.#idle.values().find(keys => keys.length > 0)?.[0];
    if (idle === undefined) return false;
    this.close(idle);
    return true;
  }

  #drop(connection: Connection): void {
    const spare = this.#spares.findIndex(held => held.connection === connection);
    if (spare >= 0) this.#spares.splice(spare, 1);
    const key = this.#held.entries().find(([, held]) => held.connection === connection)?.[0];
    if (key !== undefined) this.#forget(key);
  }

  #forget(key: string): void {
    this.#held.delete(key);
    for (const [principal, keys] of this.#idle) {
      const kept = keys.filter(idle => idle !== key);
      if (kept.length > 0) this.#idle.set(principal, kept);
      else this.#idle.delete(principal);
    }
  }

  #sweep(): void {
    const oldest = Date.now() - this.#options.service.pool.idle_s * 1000;
    for (const [key, { connection, lastUsed }] of this.#held) {
      if (lastUsed < oldest && connection.inFlight === 0) this.close(key);
    }
  }
}

import type { Logger } from 'pino';
import type { Service } from '../mesh/registry.ts';
import { type ServerState, StdioServer } from './stdio-server.ts';
import { createSubscriptions, type Subscriptions } from './subscriptions.ts';
import { createToolCatalog, type ToolCatalog } from './tool-catalog.ts';

/** A server that many calls share, with what is known of it. */
export interface Tenant {
  server: StdioServer;
  catalog: ToolCatalog;
  subscriptions: Subscriptions;
}

interface TenantsOptions {
  service: Service;
  log: Logger;
  handshakeTimeoutMs: number;
  /** State of the primary server, which stands for the service. */
  onState(state: ServerState, reason: string): void;
}

interface Guest extends Tenant {
  lastUsed: number;
  ready: Promise<void>;
}

const SWEEP_MS = 10_000;

/**
 * Who shares a server with whom: everybody the primary one; with `isolation: principal` each caller a server of their
 * own, and the primary only tells what the service is.
 */
export class Tenants {
  readonly primary: Tenant;
  readonly #options: TenantsOptions;
  readonly #guests = new Map<string, Guest>();
  readonly #catalogs = new WeakMap<object, ToolCatalog>();
  readonly #sweeper: NodeJS.Timeout;

  constructor(options: TenantsOptions) {
    this.#options = options;
    this.primary = this.#create(options.onState);
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS).unref();
  }

  get inFlight(): number {
    let sum = this.primary.server.inFlight;
    for (const { server } of this.#guests.values()) sum += server.inFlight;
    return sum;
  }

  /** The tenant of a caller; a new one is waited for until it is ready, or has failed for the first time. */
  of(principal: string): Tenant | Promise<Tenant> {
    if (this.#options.service.isolation !== 'principal') return this.primary;
    const guest = this.#guests.get(principal) ?? this.#invite(principal);
    guest.lastUsed = Date.now();
    return guest.ready.then(() => guest);
  }

  /** The tools of a tenant's server; undefined for any other server. */
  catalogOf(server: object): ToolCatalog | undefined {
    return this.#catalogs.get(server);
  }

  /** The last lines of stderr of its servers, one server after the other. */
  stderrTail(): string[] {
    return this.#all().flatMap(({ server }) => server.stderrTail());
  }

  async stop(): Promise<void> {
    clearInterval(this.#sweeper);
    await Promise.all(this.#all().map(({ server }) => server.stop()));
  }

  #invite(principal: string): Guest {
    this.#makeRoom();
    let settle = () => {};
    const ready = new Promise<void>(resolve => {
      settle = resolve;
    });
    const tenant = this.#create(state => {
      if (state !== 'starting') settle();
    });
    tenant.server.start();
    const guest = { ...tenant, lastUsed: Date.now(), ready };
    this.#guests.set(principal, guest);
    return guest;
  }

  #create(onState: TenantsOptions['onState']): Tenant {
    const { service, log, handshakeTimeoutMs } = this.#options;
    const server: StdioServer = new StdioServer({
      service,
      log,
      handshakeTimeoutMs,
      onState(state, reason) {
        if (state === 'ready') {
          catalog.invalidate();
          subscriptions.renew();
        }
        onState(state, reason);
      },
      onNotification(notification) {
        if (notification.method === 'notifications/tools/list_changed') catalog.invalidate();
        subscriptions.publish(notification);
      },
    });
    const catalog = createToolCatalog(server, { keepSchemas: service.validate_arguments });
    const subscriptions = createSubscriptions(server, log);
    this.#catalogs.set(server, catalog);
    return { server, catalog, subscriptions };
  }

  /** The one that was unused for the longest time goes; one with calls in it stays. */
  #makeRoom(): void {
    if (this.#guests.size < this.#options.service.pool.max) return;
    const [oldest] = [...this.#guests]
      .filter(([, { server }]) => server.inFlight === 0)
      .toSorted(([, a], [, b]) => a.lastUsed - b.lastUsed);
    if (oldest) this.#dismiss(oldest[0]);
  }

  #sweep(): void {
    const limit = Date.now() - this.#options.service.pool.idle_s * 1000;
    for (const [principal, { lastUsed, server }] of this.#guests) {
      if (lastUsed < limit && server.inFlight === 0) this.#dismiss(principal);
    }
  }

  #dismiss(principal: string): void {
    void this.#guests.get(principal)?.server.stop();
    this.#guests.delete(principal);
  }

  #all(): Tenant[] {
    return [this.primary, ...this.#guests.values()];
  }
}

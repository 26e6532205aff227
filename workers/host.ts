import type { Logger } from 'pino';
import type { Consul } from '../mesh/consul.ts';
import type { Service } from '../mesh/registry.ts';
import type { WorkerSettings } from '../mesh/settings.ts';
import { ResumableStreams } from './legacy/resumable.ts';
import { SessionStore } from './legacy/session-store.ts';
import { createSessionTokens, type SessionTokens } from './legacy/session-token.ts';
import { createWorkerMetrics, type WorkerMetrics } from './metrics.ts';
import { Parking } from './modern/parking.ts';
import { createPeers, type Peers } from './peers.ts';
import { ServerPool } from './pool.ts';
import { createRelay, type Relay } from './relay.ts';
import { type ServerState, StdioServer } from './stdio-server.ts';
import { createSubscriptions, type Subscriptions } from './subscriptions.ts';
import { createToolCatalog, type ToolCatalog } from './tool-catalog.ts';

/** What the routes of one worker work with. */
export interface Host {
  service: Service;
  /** Shared by all where isolation is `shared`; else it answers for the service: its info, lists and health. */
  server: StdioServer;
  /** Servers of single sessions and calls, where isolation is not `shared`. */
  pool: ServerPool;
  relay: Relay;
  tokens: SessionTokens;
  sessions: SessionStore;
  streams: ResumableStreams;
  parking: Parking;
  peers: Peers;
  subscriptions: Subscriptions;
  catalog: ToolCatalog;
  metrics: WorkerMetrics;
  /** Requests that are being answered. */
  inFlight(): number;
  stop(): Promise<void>;
}

interface HostOptions {
  service: Service;
  settings: WorkerSettings;
  log: Logger;
  consul: Consul | undefined;
  /** Keys that sign sessions and parked states, newest first. */
  keys: readonly Buffer[];
  /** Short name of this instance, once it listens. */
  owner(): string;
  onState(state: ServerState, reason: string): void;
}

/** Wires the parts of a worker that know nothing of HTTP. */
export function createHost({ service, settings, log, consul, keys, owner, onState }: HostOptions): Host {
  const { handshakeTimeoutMs } = settings;
  const server: StdioServer = new StdioServer({
    service,
    log,
    handshakeTimeoutMs,
    onState(state, reason) {
      if (state === 'ready') {
        catalog.invalidate();
        subscriptions.renew();
        if (service.isolation !== 'shared') pool.warm();
      }
      onState(state, reason);
    },
    onNotification(notification) {
      if (notification.method === 'notifications/tools/list_changed') catalog.invalidate();
      subscriptions.publish(notification);
    },
  });
  const catalog = createToolCatalog(server);
  const subscriptions = createSubscriptions(server, log);
  const pool = new ServerPool({ service, log, handshakeTimeoutMs });
  const metrics = createWorkerMetrics(service.name, server);
  const parking = new Parking({ keys, service: service.name, owner });
  const peers = createPeers({ consul, service: service.service_name, keys, self: owner });
  const sessions = new SessionStore(owner);
  return {
    service,
    server,
    pool,
    metrics,
    catalog,
    subscriptions,
    parking,
    peers,
    sessions,
    relay: createRelay(service, metrics),
    tokens: createSessionTokens({ keys, service: service.name, owner }),
    streams: new ResumableStreams(),
    inFlight: () => server.inFlight + pool.inFlight,
    async stop() {
      sessions.stop();
      parking.stop();
      peers.close();
      await Promise.all([server.stop(), pool.stop()]);
    },
  };
}

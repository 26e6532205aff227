import type { Logger } from 'pino';
import type { Consul } from '../mesh/consul.ts';
import type { Service } from '../mesh/registry.ts';
import type { WorkerSettings } from '../mesh/settings.ts';
import { ResumableStreams } from './legacy/resumable.ts';
import { SessionStore } from './legacy/session-store.ts';
import { createSessionTokens, type SessionTokens } from './legacy/session-token.ts';
import { createLoadMeter, type LoadMeter } from './load.ts';
import { createWorkerMetrics, type WorkerMetrics } from './metrics.ts';
import { Parking } from './modern/parking.ts';
import { createPeers, type Peers } from './peers.ts';
import { ServerPool } from './pool.ts';
import { Relay } from './relay.ts';
import type { ServerState, StdioServer } from './stdio-server.ts';
import { Tenants } from './tenants.ts';
import type { ToolCatalog } from './tool-catalog.ts';

/** What the routes of one worker work with. */
export interface Host {
  service: Service;
  tenants: Tenants;
  /** The primary server: it stands for the service in info, lists and health. */
  server: StdioServer;
  /** The primary server's tools. */
  catalog: ToolCatalog;
  /** Servers of single sessions and calls, where isolation is not `shared`. */
  pool: ServerPool;
  relay: Relay;
  tokens: SessionTokens;
  sessions: SessionStore;
  streams: ResumableStreams;
  parking: Parking;
  peers: Peers;
  metrics: WorkerMetrics;
  load: LoadMeter;
  /** Ends of the streams that have none of their own (`subscriptions/listen`). */
  listens: Set<() => void>;
  /** Calls in servers, and those that wait for a place there. */
  inFlight(): number;
  /** Ends the standing streams: their clients open them elsewhere. */
  endStreams(): void;
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
  const pool = new ServerPool({ service, log, handshakeTimeoutMs });
  const tenants = new Tenants({
    service,
    log,
    handshakeTimeoutMs,
    onState(state, reason) {
      if (state === 'ready' && service.isolation === 'session') pool.warm();
      onState(state, reason);
    },
  });
  const { server, catalog } = tenants.primary;
  const serving = () => tenants.inFlight + pool.inFlight;
  const metrics = createWorkerMetrics({
    service: service.name,
    server,
    inFlight: serving,
    queued: () => relay.queued,
  });
  const load: LoadMeter = createLoadMeter({
    memoryLimitMb: service.limits.memory_mb,
    serverPid: () => server.pid,
    inFlight: serving,
    queueDepth: () => relay.queued,
    breakerOpen: () => server.breakerOpen,
  });
  const relay: Relay = new Relay({ service, metrics, load });
  const parking = new Parking({ keys, service: service.name, owner });
  const peers = createPeers({ consul, service: service.service_name, keys, self: owner });
  const sessions = new SessionStore(owner);
  const listens = new Set<() => void>();
  return {
    service,
    tenants,
    server,
    catalog,
    pool,
    metrics,
    load,
    parking,
    peers,
    sessions,
    listens,
    inFlight: () => serving() + relay.queued,
    relay,
    tokens: createSessionTokens({ keys, service: service.name, owner }),
    streams: new ResumableStreams(),
    endStreams() {
      sessions.stop();
      for (const end of listens) end();
    },
    async stop() {
      parking.stop();
      peers.close();
      load.stop();
      await Promise.all([tenants.stop(), pool.stop()]);
    },
  };
}

import type { Logger } from 'pino';
import { createAuditLog } from '../mesh/audit-log.ts';
import type { Consul } from '../mesh/consul.ts';
import { ownerHash } from '../mesh/names.ts';
import type { Service } from '../mesh/registry.ts';
import type { WorkerSettings } from '../mesh/settings.ts';
import { ArgumentChecks } from './arguments/checks.ts';
import type { Tracing } from './call-trace.ts';
import { createCallerReader, type ReadCaller } from './caller.ts';
import { Gate } from './gate.ts';
import { ResumableStreams } from './legacy/resumable.ts';
import { SessionStore } from './legacy/session-store.ts';
import { createSessionTokens, type SessionTokens } from './legacy/session-token.ts';
import { createLoadMeter, type LoadMeter } from './load.ts';
import { createWorkerMetrics, type WorkerMetrics } from './metrics.ts';
import { Parking } from './modern/parking.ts';
import { createPeers, type Peers } from './peers.ts';
import { ServerPool } from './pool.ts';
import { openQuotas } from './quota-stores.ts';
import { Relay } from './relay.ts';
import type { ServerState, StdioServer } from './stdio-server.ts';
import { Tenants } from './tenants.ts';
import type { ToolCatalog } from './tool-catalog.ts';
import { NO_TRACING } from './tracing.ts';

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
  gate: Gate;
  readCaller: ReadCaller;
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
  /** The last lines of stderr of all servers: the primary one's, then those of the others. */
  stderrTail(): string[];
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
  tracing?: Tracing;
  /** Id of this instance, once it listens. */
  instance(): string;
  onState(state: ServerState, reason: string): void;
}

/** Wires the parts of a worker that know nothing of HTTP. */
export function createHost({ tracing = NO_TRACING, ...options }: HostOptions): Host {
  const { service, settings, log, consul, keys, instance, onState } = options;
  const { handshakeTimeoutMs } = settings;
  const owner = () => ownerHash(instance());
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
  const queued = () => relay.queued;
  const metrics = createWorkerMetrics({ service: service.name, server, inFlight: serving, queued });
  const load: LoadMeter = createLoadMeter({
    memoryLimitMb: service.limits.memory_mb,
    serverBytes: () => server.stats.rssBytes,
    inFlight: serving,
    queueDepth: queued,
    breakerOpen: () => server.breakerOpen,
  });
  const relay: Relay = new Relay({
    service,
    metrics,
    load,
    isRepeatable: (upstream, tool) => tenants.catalogOf(upstream)?.isRepeatable(tool) ?? false,
  });
  const { quota, close: closeQuotas } = openQuotas(service, settings, {
    log,
    onFailure: metrics.storeFailed,
  });
  const { path, withArguments: auditArguments } = settings.audit;
  const audit = path === undefined ? undefined : createAuditLog({ path, log: text => log.warn(text) });
  // Servers of single sessions and calls have no list of their own here: theirs is the primary one's.
  const catalogOf = (upstream: object) => tenants.catalogOf(upstream) ?? catalog;
  const checks = service.validate_arguments
    ? new ArgumentChecks({ log, schemaOf: (upstream, tool) => catalogOf(upstream).inputSchema(tool) })
    : undefined;
  const gate = new Gate({
    service,
    relay,
    quota,
    audit,
    metrics,
    tracing,
    isListed: (upstream, tool) => catalogOf(upstream).has(tool),
    checkArguments: checks && ((upstream, request) => checks.check(upstream, request)),
    instance,
    auditArguments,
  });
  const parking = new Parking({ keys, service: service.name, owner });
  const peers = createPeers({ consul, service, keys, tls: settings.tls, self: owner });
  const sessions = new SessionStore(owner);
  const listens = new Set<() => void>();
  metrics.follow({ service, sessions, listens, pool, audit });
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
    gate,
    readCaller: createCallerReader(settings.identityPublicKeys, service.name),
    tokens: createSessionTokens({ keys, service: service.name, owner }),
    streams: new ResumableStreams(),
    stderrTail: () => [...tenants.stderrTail(), ...pool.stderrTail()],
    endStreams() {
      sessions.stop();
      for (const end of listens) end();
    },
    async stop() {
      parking.stop();
      peers.close();
      load.stop();
      await Promise.all([tenants.stop(), pool.stop()]);
      await Promise.all([closeQuotas(), audit?.close()]);
    },
  };
}

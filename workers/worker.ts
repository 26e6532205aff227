import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { createConsul } from '../mesh/consul.ts';
import { createHostGuard } from '../mesh/host-guard.ts';
import { instanceId } from '../mesh/names.ts';
import type { Service } from '../mesh/registry.ts';
import type { WorkerSettings } from '../mesh/settings.ts';
import { buildApp } from './app.ts';
import { createHost, type Host } from './host.ts';
import { createRegistration, type Registration } from './registration.ts';
import type { ServerState } from './stdio-server.ts';
import { createTracing } from './tracing.ts';
import { type Traffic, watchTraffic } from './traffic.ts';

export interface Worker {
  address: string;
  port: number;
  /** Its id in Consul. */
  instance: string;
  host: Host;
  traffic: Traffic;
  /**
   * Leaves Consul, answers what is in flight, ends the server. `idleMs`: how long no request must have come before it
   * closes its listener; default: as the settings say.
   */
  stop(idleMs?: number): Promise<void>;
}

interface WorkerOptions {
  service: Service;
  settings: WorkerSettings;
  log: Logger;
  register: boolean;
  /** Default: a free port of the service's range, or any. */
  port?: number;
  /** The MCP server's state has changed. */
  onState?(state: ServerState, reason: string): void;
}

const DRAIN_POLL_MS = 50;
/** Gateways wait 30 s longer than a call may take: this must not use that up. */
const FIRST_START_MS = 10_000;
const CALLS = /^\/(mcp|execute|tools|openapi\.json)\b/;

/**
 * Starts one worker: HTTP endpoint, MCP server, registration. Resolves once it listens; the server may still be
 * starting, which Consul and /health then say.
 * @throws Error when no port is free, or when the address is reachable from elsewhere and nothing protects it
 */
export async function startWorker({
  service,
  settings,
  log,
  register,
  port,
  onState,
}: WorkerOptions): Promise<Worker> {
  const consul = register && settings.consul ? createConsul(settings.consul) : undefined;
  if (register && !consul) log.warn('CONSUL_HTTP_ADDR is not set: the worker runs without being registered');
  const address = settings.advertiseAddress ?? (await consul?.localAddress()) ?? '127.0.0.1';
  requireSafeAddress(address, settings);

  let registration: Registration | undefined;
  let draining = false;
  let identity = '';
  let listening = 0;
  const keys = serviceKeys(settings, log);
  const tried = Promise.withResolvers<void>();
  const tracing = await createTracing(settings.tracing, describeWorker(service, settings), log);
  const host: Host = createHost({
    service,
    settings,
    log,
    consul,
    keys,
    tracing,
    instance: () => identity,
    onState(state, reason) {
      onState?.(state, reason);
      if (state !== 'starting') tried.resolve();
      if (state === 'ready') log.info({ server: host.server.info?.serverInfo }, 'server is ready');
      registration?.report(state, reason);
      if (state === 'ready' && registration) describeServer(host, registration, log);
    },
  });
  const app = buildApp({
    host,
    log,
    refuseHost: createHostGuard({
      hosts: [address, ...settings.allowedHosts],
      origins: settings.allowedOrigins,
    }),
    isDraining: () => draining,
    tls: settings.tls,
    proof: { keys, instanceId: () => identity, address: () => address, port: () => listening },
  });
  holdEarlyCalls(app, tried.promise);
  const traffic = watchTraffic(app.server);
  listening = await listen(app, address, port === undefined ? service.port_range : [port, port]);
  identity = instanceId(service.name, settings.host, listening);
  log.info({ address, port: listening, instance: identity }, 'worker listens');
  if (consul) {
    registration = createRegistration({
      consul,
      service,
      host: settings.host,
      address,
      port: listening,
      secure: settings.tls !== undefined,
      log,
    });
    registration.start();
  }
  host.server.start();

  return {
    address,
    port: listening,
    instance: identity,
    host,
    traffic,
    async stop(idleMs = settings.drainIdleMs) {
      await registration?.stop();
      draining = true;
      host.endStreams();
      const deadline = Date.now() + settings.drainDeadlineMs;
      await quiet(host, traffic, idleMs, deadline);
      await closeConnections(app, traffic, deadline);
      await host.stop();
      await tracing.close();
      consul?.close();
    },
  };
}

/** This program, as the OpenTelemetry conventions for resources name it. */
function describeWorker({ name }: Service, { host }: WorkerSettings): Record<string, string> {
  return {
    'service.name': `mcp-mesh-worker-${name}`,
    'service.namespace': 'mcp-mesh',
    'service.instance.id': `${name}@${host}:${process.pid}`,
  };
}

/**
 * Has calls wait until the server is up, or has failed, for the first time: a worker that is back at its port before
 * Consul missed it is still taken for passing, and Kong tries no other instance after an answer, whatever its status.
 */
function holdEarlyCalls(app: FastifyInstance, tried: Promise<void>): void {
  let early = true;
  const end = Promise.race([tried, delay(FIRST_START_MS, undefined, { ref: false })]).then(() => {
    early = false;
  });
  app.addHook('preHandler', (request, _reply, done) => {
    if (early && CALLS.test(request.url)) void end.then(() => done());
    else done();
  });
}

/** Waits until gateways have stopped sending and what they sent is answered, or until the deadline. */
async function quiet(host: Host, traffic: Traffic, idleMs: number, deadline: number): Promise<void> {
  const since = performance.now();
  while (Date.now() < deadline) {
    // However long nothing came before: a gateway may just be choosing this instance by what it last heard.
    const quietMs = Math.min(traffic.quietMs, performance.now() - since);
    if (host.inFlight() === 0 && quietMs >= idleMs) return;
    await delay(DRAIN_POLL_MS);
  }
}

/** Closes the listener, and the connections as soon as no answer is on its way, or at the deadline. */
async function closeConnections(app: FastifyInstance, traffic: Traffic, deadline: number): Promise<void> {
  const sweep = setInterval(() => {
    if (traffic.open === 0 || Date.now() >= deadline) app.server.closeAllConnections();
  }, DRAIN_POLL_MS);
  await app.close();
  clearInterval(sweep);
}

/** A reachable worker would run its tools for anybody who can connect. */
function requireSafeAddress(address: string, settings: WorkerSettings): void {
  const loopback = address === '::1' || address.startsWith('127.') || address === 'localhost';
  const authenticated = settings.identityPublicKeys.length > 0 && settings.serviceKeys.length > 0;
  if (loopback || authenticated || settings.allowUnauthenticated) return;
  throw new Error(
    `${address} is reachable from other machines and calls are not authenticated: give this worker its keys ` +
      '(MESH_IDENTITY_PUBLIC_KEYS and MESH_SERVICE_KEYS; `npx mesh keys init` makes them), advertise a ' +
      'loopback address (MESH_ADVERTISE_ADDRESS=127.0.0.1), or set MESH_ALLOW_UNAUTHENTICATED=true on a network ' +
      'that you trust',
  );
}

function serviceKeys(settings: WorkerSettings, log: Logger): Buffer[] {
  if (settings.serviceKeys.length > 0) return settings.serviceKeys;
  log.info('MESH_SERVICE_KEYS is not set: sessions are good for this worker only, until it ends');
  return [randomBytes(32)];
}

async function listen(
  app: FastifyInstance,
  host: string,
  range: readonly [number, number] | undefined,
): Promise<number> {
  const [first, last] = range ?? [0, 0];
  for (let port = first; port <= last; port += 1) {
    try {
      await app.listen({ host, port });
      const bound = app.server.address();
      return typeof bound === 'object' && bound ? bound.port : port;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
  }
  const which = first === last ? `port ${first} is` : `all ports from ${first} to ${last} are`;
  throw new Error(`${which} in use on ${host}: end what holds them, or choose another port_range`);
}

/** Version, protocol and a hash of the tools: gateways and people see from it whether instances are alike. */
function describeServer({ server, catalog }: Host, registration: Registration, log: Logger): void {
  const { info } = server;
  if (!info) return;
  const meta = { version: info.serverInfo.version, era: info.era, protocol_version: info.protocolVersion };
  catalog.hash().then(
    tools_hash => registration.describe({ ...meta, tools_hash }),
    error => {
      log.debug({ err: error }, 'tools are not listed');
      registration.describe(meta);
    },
  );
}

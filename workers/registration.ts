import type { Logger } from 'pino';
import { type Consul, type Registration as ConsulRegistration, NotRegistered } from '../mesh/consul.ts';
import { CONSUL_TAG, instanceId } from '../mesh/names.ts';
import { publicDefinition, type Service } from '../mesh/registry.ts';
import type { ServerState } from './stdio-server.ts';

export interface Registration {
  /** Registers the instance, critical until told otherwise, and keeps its heartbeat. */
  start(): void;
  /** The server's state, with the reason that operators and callers are to see. */
  report(state: ServerState, reason: string): void;
  /** What is known of the server after its handshake; Consul shows it as service meta. */
  describe(meta: Record<string, string>): void;
  /** Ends the heartbeat and takes the instance out of Consul. Resolves also when Consul cannot be reached. */
  stop(): Promise<void>;
}

interface RegistrationOptions {
  consul: Consul;
  service: Service;
  host: string;
  /** The address that others reach. */
  address: string;
  port: number;
  /** Whether it speaks TLS; default: no. */
  secure?: boolean;
  log: Logger;
}

const TTL_SECONDS = 15;
const HEARTBEAT_MS = (TTL_SECONDS * 1000) / 3;
const RETRY_MS = 1000;
const DEREGISTER_AFTER_SECONDS = 600;
const HEALTH = { intervalSeconds: 2, timeoutSeconds: 5 };
/** Consul's own limit for a meta value. */
const META_BYTES = 512;

/** The instance's entry in Consul, brought in line again and again: an agent that forgot it is told anew. */
export function createRegistration(options: RegistrationOptions): Registration {
  const { consul, service, log } = options;
  let status: 'passing' | 'critical' = 'critical';
  let output = 'worker is starting';
  let meta = baseMeta(options);
  let registered = false;
  let stopped = false;
  let failing = false;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let again = false;

  const synchronize = async () => {
    if (!registered) {
      const sent = meta;
      await consul.register(toConsul(options, sent));
      // More may have become known meanwhile.
      registered = sent === meta;
      await consul.putDefinition(service.name, publicDefinition(service));
    }
    await consul.report(consulId(options), status, output);
  };

  const run = async () => {
    do {
      again = false;
      try {
        await synchronize();
        if (failing) log.info('Consul answers again');
        failing = false;
      } catch (error) {
        if (error instanceof NotRegistered) {
          log.warn('Consul has forgotten this instance; it is registered again');
          registered = false;
          again = true;
          continue;
        }
        if (!failing)
          log.warn({ err: error }, 'Consul does not take the registration; calls are served all the same');
        failing = true;
      }
    } while (again && !stopped);
  };

  /** Now, or right after what is under way: Consul sees states in their order. */
  const kick = () => {
    if (stopped) return;
    if (running) {
      again = true;
      return;
    }
    clearTimeout(timer);
    running = run().finally(() => {
      running = undefined;
      if (!stopped) timer = setTimeout(kick, failing ? RETRY_MS : HEARTBEAT_MS);
    });
  };

  return {
    start: kick,
    report(state, reason) {
      status = state === 'ready' ? 'passing' : 'critical';
      output = state === 'ready' ? 'server is ready' : reason;
      kick();
    },
    describe(more) {
      meta = { ...meta, ...cut(more) };
      // Check states survive a registration under the same id, so this needs no new health check.
      registered = false;
      kick();
    },
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
      try {
        await consul.deregister(consulId(options));
      } catch (error) {
        log.warn({ err: error }, 'Consul did not take the deregistration; its TTL check will');
      }
    },
  };
}

function consulId({ service, host, port }: RegistrationOptions): string {
  return instanceId(service.name, host, port);
}

function toConsul(options: RegistrationOptions, meta: Record<string, string>): ConsulRegistration {
  const { service, address, port, secure = false } = options;
  const urlHost = address.includes(':') ? `[${address}]` : address;
  return {
    id: consulId(options),
    name: service.service_name,
    address,
    port,
    tags: [...new Set([CONSUL_TAG, ...service.tags])],
    meta,
    weights: { passing: service.weight, warning: Math.max(1, Math.floor(service.weight / 10)) },
    ttlSeconds: TTL_SECONDS,
    deregisterAfterSeconds: DEREGISTER_AFTER_SECONDS,
    health: { url: `${secure ? 'https' : 'http'}://${urlHost}:${port}${service.health_check}`, ...HEALTH },
  };
}

function baseMeta(options: RegistrationOptions): Record<string, string> {
  const { service } = options;
  return cut({
    mcp_server: service.name,
    instance: consulId(options),
    capabilities: service.capabilities.join(','),
    strategy: service.load_balancer,
    sharing: service.isolation,
    failure_threshold: String(service.circuit_breaker.failure_threshold),
    recovery_timeout: String(service.circuit_breaker.recovery_timeout),
    started_at: new Date().toISOString(),
  });
}

function cut(meta: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(meta).map(([key, value]) => [key, value.slice(0, META_BYTES)]));
}

import type { Instance } from './consul.ts';

/** An instance, as it is put into Consul. */
export interface Registration {
  id: string;
  name: string;
  address: string;
  port: number;
  tags: readonly string[];
  /** Consul's limits: 64 pairs, keys of [A-Za-z0-9_-] up to 128, values up to 512 characters. */
  meta: Readonly<Record<string, string>>;
  weights: { passing: number; warning: number };
  /** Without it nobody reports, and the health URL alone says how the instance is. */
  ttlSeconds?: number;
  /** Consul takes no less than 60. */
  deregisterAfterSeconds: number;
  /** Consul takes no interval below 1 s. */
  health: { url: string; intervalSeconds: number; timeoutSeconds: number };
}

/** What the agent has under an id, whoever registered it. */
export type Registered = Pick<Instance, 'id' | 'service' | 'address' | 'port' | 'meta'>;

/** Answer to GET /v1/agent/service/<id>. */
export interface AgentService {
  ID: string;
  Service: string;
  Address: string;
  Port: number;
  Meta: Record<string, string> | null;
}

export function serviceBody({ id, weights, ...service }: Registration): object {
  return {
    ID: id,
    Name: service.name,
    Address: service.address,
    Port: service.port,
    Tags: service.tags,
    Meta: service.meta,
    Weights: { Passing: weights.passing, Warning: weights.warning },
  };
}

/** Of an instance that reports on itself. */
export function reportedChecks(registration: Registration, ttlSeconds: number): object[] {
  const heartbeat = {
    CheckID: `${registration.id}:ttl`,
    Name: 'heartbeat of the worker',
    TTL: `${ttlSeconds}s`,
    Status: 'critical',
    DeregisterCriticalServiceAfter: `${registration.deregisterAfterSeconds}s`,
  };
  return [heartbeat, httpCheck(registration)];
}

/** Of one that somebody else registered: a redirect would let him have the agent ask, and tell, anything. */
export function foreignHttpCheck(registration: Registration): object {
  return {
    ...httpCheck(registration),
    DisableRedirects: true,
    DeregisterCriticalServiceAfter: `${registration.deregisterAfterSeconds}s`,
  };
}

function httpCheck({ id, health }: Registration): object {
  return {
    CheckID: `${id}:http`,
    Name: 'health at the advertised address',
    HTTP: health.url,
    // The agent knows nothing of the mesh's CA; who answers is proven otherwise.
    ...(health.url.startsWith('https:') ? { TLSSkipVerify: true } : {}),
    Method: 'GET',
    Interval: `${health.intervalSeconds}s`,
    Timeout: `${health.timeoutSeconds}s`,
    // Not critical: the output of a first failure would be a change of the output alone (see report).
    Status: 'warning',
  };
}

export function connectCheck({ id, address, port, health, deregisterAfterSeconds }: Registration): object {
  return {
    CheckID: `${id}:tcp`,
    Name: 'connection to the advertised address',
    TCP: `${address.includes(':') ? `[${address}]` : address}:${port}`,
    Interval: `${health.intervalSeconds}s`,
    Timeout: `${health.timeoutSeconds}s`,
    Status: 'warning',
    DeregisterCriticalServiceAfter: `${deregisterAfterSeconds}s`,
  };
}

export function readRegistered(found: AgentService | undefined): Registered | undefined {
  if (found === undefined) return undefined;
  const { ID, Service, Address, Port, Meta } = found;
  return { id: ID, service: Service, address: Address, port: Port, meta: Meta ?? {} };
}

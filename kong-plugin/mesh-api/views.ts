import type { Instance } from '../../mesh/consul.ts';
import { consulName, MCP_PATH, ownerHash } from '../../mesh/names.ts';
import type { KnownService } from '../discovery.ts';

/** `ok`: all instances pass; `degraded`: some do; `down`: none. */
export type HealthStatus = 'ok' | 'degraded' | 'down';

/** Consul answers every 33 s at the latest, changed or not; beyond this it is away. */
const STALE_S = 60;

/**
 * Body of GET …/services: each service as GET …/<name>/status has it (`service, instances, healthy, strategy,
 * details`), with `consul_service` and `path`, and its details with the instance's `tags` and `capabilities`.
 */
export function describeServices(
  services: readonly KnownService[],
  status: (service: KnownService) => object,
): object {
  return {
    services: services.map(service => {
      const summary: { details?: object[] } = status(service);
      return {
        ...summary,
        consul_service: consulNameOf(service),
        path: `${MCP_PATH}/${service.name}`,
        details: service.instances.map(({ id, tags, meta }, i) => ({
          id,
          ...summary.details?.[i],
          tags,
          capabilities: words(meta.capabilities),
        })),
      };
    }),
  };
}

/**
 * Body of GET …/topology: which instance of which service is where. `node` is the host whose Consul agent has it, and
 * `owner` begins the `Mcp-Session-Id` of the sessions that it owns; null is what the instance does not say.
 * `origin`: `api` when somebody registered it by this API, `worker` when it did so itself.
 */
export function describeTopology(services: readonly KnownService[]): object {
  return {
    services: services.map(service => ({
      service: service.name,
      consul_service: consulNameOf(service),
      instances: service.instances.map(({ id, node, address, port, status, meta }) => ({
        id,
        node,
        address,
        port,
        state: status,
        era: meta.era ?? null,
        protocol_version: meta.protocol_version ?? null,
        version: meta.version ?? null,
        sharing: meta.sharing ?? null,
        owner: ownerHash(id),
        origin: meta.registered_by === undefined ? 'worker' : 'api',
      })),
    })),
  };
}

/**
 * Body of GET …/health: `status` of the mesh as the caller sees it, the seconds since Consul last answered, and for each
 * service its own status and its instances by state. The answer's HTTP status is 200 whatever the body says.
 */
export function describeHealth(services: readonly KnownService[], catalogueAgeS: number): object {
  const known = services.map(service => [service.name, healthOf(service.instances)] as const);
  const states = known.map(([, { status }]) => status);
  const age = Math.round(catalogueAgeS);
  return {
    status: overall(states, age > STALE_S),
    catalogue_age_s: age,
    services: Object.fromEntries(known),
  };
}

function healthOf(instances: readonly Instance[]) {
  const counts = { passing: 0, warning: 0, critical: 0, maintenance: 0 };
  for (const { status } of instances) counts[status] += 1;
  const { passing } = counts;
  const status: HealthStatus = passing === 0 ? 'down' : passing === instances.length ? 'ok' : 'degraded';
  return { status, instances: instances.length, ...counts };
}

function overall(states: readonly HealthStatus[], stale: boolean): HealthStatus {
  if (states.length > 0 && states.every(state => state === 'down')) return 'down';
  return !stale && states.every(state => state === 'ok') ? 'ok' : 'degraded';
}

export function consulNameOf({ name, definition }: KnownService): string {
  return String(definition.service_name ?? consulName(name));
}

function words(list = ''): string[] {
  return list
    .split(',')
    .map(word => word.trim())
    .filter(word => word !== '');
}

import { MCP_PATH } from '../mesh/names.ts';
import type { KnownService } from './discovery.ts';

/** Body of `GET /api/v1/mcp/<name>/status`; `load` and `breaker` are null while the gateway has no report of them. */
export function describeStatus(service: KnownService): object {
  return {
    ...summarize(service),
    details: service.instances.map(({ id, address, port, status, reason, meta }) => ({
      id,
      address: `${address.includes(':') ? `[${address}]` : address}:${port}`,
      state: status,
      ...(reason === '' ? {} : { reason }),
      load: null,
      breaker: null,
      version: meta.version ?? null,
      era: meta.era ?? null,
    })),
  };
}

/** Body of `GET /api/v1/mcp`. */
export function listServices(services: KnownService[]): object {
  return {
    services: services.map(service => ({ ...summarize(service), path: `${MCP_PATH}/${service.name}` })),
  };
}

function summarize({ name, instances, definition }: KnownService) {
  return {
    service: name,
    instances: instances.length,
    healthy: instances.filter(({ status }) => status === 'passing').length,
    strategy: definition.load_balancer ?? null,
  };
}

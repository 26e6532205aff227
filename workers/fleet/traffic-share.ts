import type { Logger } from 'pino';
import type { Consul } from '../../mesh/consul.ts';
import { publicDefinition, type Service } from '../../mesh/registry.ts';

/**
 * Says that a service's registry entry has changed, and tells gateways at once when new sessions are to be shared out
 * otherwise with an old deployment: workers say so, too, but only when they have been restarted, and the way back must
 * not wait for that.
 */
export function announceChange(
  before: Service,
  service: Service,
  { consul, log }: { consul: Consul | undefined; log: Logger },
): void {
  const { name, traffic_percent, legacy_url } = service;
  log.info({ service: name }, 'the registry entry of a service has changed');
  if (before.traffic_percent === traffic_percent && before.legacy_url === legacy_url) return;
  consul
    ?.putDefinition(name, publicDefinition(service))
    .catch(err => log.warn({ err, service: name }, 'its workers will tell Consul of the share'));
}

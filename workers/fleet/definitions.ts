import type { Logger } from 'pino';
import type { Consul } from '../../mesh/consul.ts';
import { publicDefinition, type Service } from '../../mesh/registry.ts';

/** Workers publish what gateways are to know of their service; the supervisor does what no worker can do in time. */
interface Publisher {
  /** undefined: nobody is told. */
  consul: Consul | undefined;
  log: Logger;
}

/**
 * Says that a service's registry entry has changed, and tells gateways at once when new sessions are to be shared out
 * otherwise with an old deployment: workers say so, too, but only when they have been restarted, and the way back must
 * not wait for that.
 */
export function announceChange(before: Service, service: Service, { consul, log }: Publisher): void {
  const { name, traffic_percent, legacy_url } = service;
  log.info({ service: name }, 'the registry entry of a service has changed');
  if (before.traffic_percent === traffic_percent && before.legacy_url === legacy_url) return;
  consul
    ?.putDefinition(name, publicDefinition(service))
    .catch(err => log.warn({ err, service: name }, 'its workers will tell Consul of the share'));
}

/** Has gateways forget a service that the registry no longer has, unless other hosts still have instances of it. */
export async function withdraw({ name, service_name }: Service, { consul, log }: Publisher): Promise<void> {
  try {
    await consul?.removeDefinition(name, service_name);
  } catch (err) {
    const key = `mcp-mesh/services/${name}`;
    log.warn({ err, service: name }, `gateways go on listing it: remove ${key} from Consul's KV store`);
  }
}

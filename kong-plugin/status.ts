import { withoutLastWords } from '../mesh/last-words.ts';
import { MCP_PATH } from '../mesh/names.ts';
import type { Load } from './balancer/load.ts';
import type { ChooseParts } from './choose.ts';
import { isMigrating, type SideParts } from './choose-side.ts';
import type { KnownService } from './discovery.ts';

/** Body of `GET /api/v1/mcp/<name>/status`; `load` is null while the gateway knows nothing of it. */
export function describeStatus(
  service: KnownService,
  { balancer, ejection, oldDeployments }: ChooseParts & SideParts,
): object {
  return {
    ...summarize(service),
    ...describeTraffic(service, oldDeployments),
    details: service.instances.map(({ id, address, port, status, reason, meta }) => ({
      id,
      address: `${address.includes(':') ? `[${address}]` : address}:${port}`,
      state: status,
      ...(reason === '' ? {} : { reason: withoutLastWords(reason) }),
      load: describeLoad(balancer.load(id)),
      ...describeBreaker(ejection.state(id)),
      version: meta.version ?? null,
      era: meta.era ?? null,
    })),
  };
}

/** The share of new sessions that go to the mesh, and whether the others have anywhere to go. */
function describeTraffic(service: KnownService, oldDeployments: SideParts['oldDeployments']): object {
  const { traffic_percent, legacy_url } = service.definition;
  const share = typeof traffic_percent === 'number' ? { traffic_percent } : {};
  if (!isMigrating(service)) return share;
  const found = oldDeployments?.peek(String(legacy_url));
  const fault = found && 'fault' in found ? { fault: found.fault } : {};
  return {
    ...share,
    legacy: { reachable: found === undefined ? null : found.target !== undefined, ...fault },
  };
}

/** Body of `GET /api/v1/mcp`. */
export function listServices(services: KnownService[]): object {
  return {
    services: services.map(service => ({ ...summarize(service), path: `${MCP_PATH}/${service.name}` })),
  };
}

/** Our own calls there, and what the instance last said of itself. */
function describeLoad(load: Load | undefined): object | null {
  if (!load) return null;
  const now = Date.now();
  const report = load.report(now);
  const known = report && {
    reported_in_flight: report.inFlight,
    queue_depth: report.queueDepth,
    cpu: report.cpu,
    memory: report.memory,
  };
  const latency_ms = Math.round(load.latencyMs(now) * 10) / 10;
  return { in_flight: load.inFlight, streams: load.streams, latency_ms, ...known };
}

/** Anything but `closed`: it gets no calls but a probe, unless too many instances are in that state. */
function describeBreaker({ state, reason }: ReturnType<ChooseParts['ejection']['state']>): object {
  return { breaker: state, ...(reason === '' ? {} : { breaker_reason: reason }) };
}

function summarize({ name, instances, definition }: KnownService) {
  return {
    service: name,
    instances: instances.length,
    healthy: instances.filter(({ status }) => status === 'passing').length,
    strategy: definition.load_balancer ?? null,
  };
}

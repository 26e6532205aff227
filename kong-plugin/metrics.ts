import { Counter, Gauge, Registry } from 'prom-client';
import type { AccessPolicy } from '../mesh/access-policy.ts';
import { METRIC_PREFIX } from '../mesh/names.ts';
import { addCount, addGauge } from '../mesh/read-metrics.ts';
import type { Decisions } from './decisions.ts';
import type { Discovery } from './discovery.ts';
import type { Outcome } from './log.ts';
import { type Catalogue, describeCatalogue } from './metrics/catalogue.ts';
import { type MetricsPlace, serveMetrics } from './metrics/endpoint.ts';
import { describeInstances, type InstanceSources } from './metrics/instances.ts';
import { TrafficMetrics } from './metrics/traffic.ts';

export interface GatewayMetrics {
  observe(outcome: Outcome): void;
  /** A request was answered by the gateway itself; an error's code, or a finer reason, and the service asked for. */
  denied(reason: string, service?: string): void;
  /** The breaker of an instance has opened. */
  breakerOpened(instance: string): void;
  /** The access policy changed into something that cannot be used. */
  policyRefused(): void;
  /** A limit was decided without its store. */
  limitStoreFailed(): void;
  /** Shows from now on what these say of themselves, too; to be called once. */
  follow(sources: GatewaySources): void;
  /** In Prometheus' text format. */
  text(): Promise<string>;
  close(): void;
}

/** Parts of the gateway that are looked at when somebody asks for the metrics. */
export interface GatewaySources extends InstanceSources {
  discovery: Pick<Discovery, 'list' | 'find'>;
  policy: { (): AccessPolicy | undefined; isRefused(): boolean };
  authenticator: { readonly jwksFailures: number };
  audit: { readonly dropped: number } | undefined;
}

const PREFIX = `${METRIC_PREFIX}gateway_`;

/** What the gateway counts, and the size of its catalogue; exposed at `/metrics` where `place` says. */
export function createGatewayMetrics(
  place: MetricsPlace | undefined,
  catalogue?: Catalogue,
  findDecision?: Decisions['find'],
): GatewayMetrics {
  const register = new Registry();
  const registers = [register];
  const traffic = new TrafficMetrics(registers);
  const policyRefusals = new Counter({
    name: `${PREFIX}policy_refusals_total`,
    help: 'Times that the access policy changed into something that cannot be used',
    registers,
  });
  const storeFailures = new Counter({
    name: `${PREFIX}limit_store_failures_total`,
    help: 'Limits that were decided without Redis',
    registers,
  });
  let sources: GatewaySources | undefined;
  if (catalogue) describeCatalogue(catalogue, registers);
  const text = async () => {
    if (sources) await traffic.retain(sources.discovery.list());
    return register.metrics();
  };
  const close = place === undefined ? () => {} : serveMetrics(register, text, place, findDecision);
  return {
    observe: outcome => traffic.observe(outcome),
    denied: (reason, service) =>
      traffic.denied(reason, service, name => sources?.discovery.find(name) !== undefined),
    breakerOpened(instance) {
      const isOf = ({ instances }: { instances: { id: string }[] }) =>
        instances.some(({ id }) => id === instance);
      const service = sources?.discovery.list().find(isOf);
      if (service) traffic.opened(service.name);
    },
    policyRefused: () => policyRefusals.inc(),
    limitStoreFailed: () => storeFailures.inc(),
    follow(parts) {
      sources = parts;
      describeInstances(parts, registers);
      describeAccess(parts, registers);
    },
    text,
    close,
  };
}

function describeAccess({ policy, authenticator, audit }: GatewaySources, registers: Registry[]): void {
  new Gauge({
    name: `${PREFIX}policy_info`,
    help: 'Always 1; the version of the access policy in force (of its text); no series while there is none',
    labelNames: ['version'],
    registers,
    collect() {
      this.reset();
      const { version } = policy() ?? {};
      if (version !== undefined) this.set({ version }, 1);
    },
  });
  addGauge(
    `${PREFIX}policy_refused`,
    '1 while the access policy file, as it is now, is not in force',
    () => Number(policy.isRefused()),
    registers,
  );
  addCount(
    `${PREFIX}jwks_failures_total`,
    "Fetches of token issuers' keys that failed",
    () => authenticator.jwksFailures,
    registers,
  );
  addCount(
    `${PREFIX}audit_entries_lost_total`,
    'Audit entries that were not written',
    () => audit?.dropped ?? 0,
    registers,
  );
}

import { join } from 'node:path';
import { type AuditLog, createAuditLog } from '../mesh/audit-log.ts';
import { type Consul, createConsul } from '../mesh/consul.ts';
import { createHostGuard } from '../mesh/host-guard.ts';
import { createSigner, parsePrivateKey } from '../mesh/identity.ts';
import { createLimitStore } from '../mesh/limit-store.ts';
import { consulName } from '../mesh/names.ts';
import type { GatewaySettings } from '../mesh/settings.ts';
import type { AccessParts } from './access.ts';
import { createAuthenticator } from './authenticate.ts';
import { createBalancer } from './balancer/balancer.ts';
import { isOldDeployment } from './choose-side.ts';
import { createDecisions, type Decisions } from './decisions.ts';
import { createDiscovery, type Discovery } from './discovery.ts';
import { Ejection } from './ejection.ts';
import { createLimits } from './limits.ts';
import type { Outcome } from './log.ts';
import { createMeshApi } from './mesh-api.ts';
import { createGatewayMetrics, type GatewayMetrics } from './metrics.ts';
import { createOldDeployments, TrafficShare } from './old-deployment.ts';
import { createPolicy } from './policy.ts';
import { createProver } from './prover.ts';
import { describeStatus } from './status.ts';
import { createTableFile } from './table-file.ts';
import { createGatewayTracing } from './tracing.ts';
import { trustedOnly } from './trusted.ts';

export interface Gateway extends AccessParts {
  /** Whether Kong's own authentication plugins say who calls. */
  kongConsumers: boolean;
  metrics: GatewayMetrics;
  decisions: Decisions;
}

const TABLE_FILE = 'discovery.json';
const OWN_BREAKER = 'its own breaker is open: the MCP server failed too often in a row';

/** Everything that outlives a request, wired; one for the process. */
export function createGateway(settings: GatewaySettings): Gateway {
  if (settings.rootKeys.length === 0) warn('MESH_ROOT_KEYS is not set: every instance in Consul is believed');
  const balancer = createBalancer();
  const ejection = new Ejection({
    onChange(instance, state, reason) {
      warn(`${instance}: breaker ${state}${reason && `: ${reason}`}`);
      if (state === 'open') metrics.breakerOpened(instance);
    },
  });
  const consul = createConsul(settings.consul);
  const discovery = createTrustedDiscovery(settings, { consul, balancer, ejection });
  const decisions = createDecisions();
  const { metricsHost, metricsPort } = settings;
  const place = metricsPort === undefined ? undefined : { host: metricsHost, port: metricsPort };
  const metrics = createGatewayMetrics(place, discovery, decisions.find);
  const policy = createPolicy({ path: settings.policyPath, warn, onRefused: metrics.policyRefused });
  const { identityPrivateKey, kongConsumers, publicUrl } = settings;
  const authenticator = createAuthenticator({ policy, publicUrl, kongConsumers, log: warn });
  const audit = createAudit(settings.audit.path);
  const oldDeployments = createOldDeployments({ policy, isSecure: settings.tls !== undefined, log: warn });
  metrics.follow({ discovery, balancer, ejection, policy, authenticator, audit });
  return {
    discovery,
    balancer,
    ejection,
    oldDeployments,
    share: new TrafficShare(),
    metrics,
    decisions,
    tracing: settings.tracing && createGatewayTracing(settings.tracing, warn),
    policy,
    publicUrl,
    kongConsumers,
    authenticator,
    limits: createLimits({
      store: createLimitStore({ ...settings.limits, log: warn, onFailure: metrics.limitStoreFailed }),
    }),
    meshApi: createMeshApi({
      discovery,
      consul,
      policy,
      scheme: settings.tls ? 'https' : 'http',
      status: service => describeStatus(service, { balancer, ejection, oldDeployments }),
      log: warn,
    }),
    sign:
      identityPrivateKey === undefined
        ? undefined
        : createSigner({ privateKey: parsePrivateKey(identityPrivateKey) }),
    audit,
    refuseHost: createHostGuard({
      hosts: [...settings.allowedHosts, ...(publicUrl ? [new URL(publicUrl).hostname] : [])],
      origins: settings.allowedOrigins,
      localNames: true,
    }),
  };
}

/** How a call went, for the choice of the next one. */
export function learn(outcome: Outcome, gateway: Gateway): void {
  const { balancer, ejection, limits, metrics, decisions, tracing } = gateway;
  metrics.observe(outcome);
  decisions.complete(outcome);
  tracing?.end(outcome);
  const { lease, tries, report, answeredMs } = outcome;
  balancer.release(lease);
  limits.leave(lease);
  for (const { instance, result, reason } of tries) {
    // Nobody chooses between it and others.
    if (isOldDeployment(instance)) return;
    if (result === 'answered' && report?.breakerOpen) ejection.trip(lease, instance, OWN_BREAKER);
    else if (result !== 'unknown') ejection.learn(lease, instance, result === 'failed' ? reason : undefined);
  }
  ejection.release(lease);
  const answeredBy = tries.at(-1)?.instance;
  if (answeredBy === undefined || answeredMs === undefined) return;
  balancer.learn(answeredBy, { latencyMs: outcome.status >= 500 ? undefined : answeredMs, report });
}

function createTrustedDiscovery(
  settings: GatewaySettings,
  { consul, balancer, ejection }: Pick<Gateway, 'balancer' | 'ejection'> & { consul: Consul },
): Discovery {
  let failing = false;
  const prover = createProver({
    rootKeys: settings.rootKeys,
    tls: settings.tls,
    onChange: () => trusted.changed(),
    log: warn,
    consulService: name => String(discovery.find(name)?.definition.service_name ?? consulName(name)),
  });
  const discovery: Discovery = createDiscovery({
    consul,
    file:
      settings.stateDir === undefined
        ? undefined
        : createTableFile({ path: join(settings.stateDir, TABLE_FILE), log: warn }),
    onInstances(ids) {
      const instances = discovery.list().flatMap(service => service.instances);
      balancer.retain(ids);
      ejection.retain(instances);
      prover.update(instances);
      trusted.changed();
    },
    onError(error) {
      if (!failing) warn(`Consul cannot be read, the last table stays in use: ${error.message}`);
      failing = true;
    },
    onRecover() {
      if (failing) warn('Consul can be read again');
      failing = false;
    },
  });
  const trusted = trustedOnly(discovery, prover);
  return trusted;
}

function createAudit(path: string | undefined): AuditLog | undefined {
  return path === undefined ? undefined : createAuditLog({ path, log: warn });
}

/** Kong parses the plugin server's stdout. */
function warn(text: string): void {
  process.stderr.write(`mcp-mesh: ${text}\n`);
}

import { instanceCount, loadRegistry, type Service } from '../../mesh/registry.ts';
import { workerSettings } from '../../mesh/settings.ts';

/** Path below the repository's root → text. */
export type Files = Map<string, string>;

/** One service of the registry as an orchestrator sees it. */
export interface Workload {
  /** As the registry names it. */
  service: string;
  /** As Consul has it. */
  consulName: string;
  /** Its name as a DNS label (RFC 1123): names of networks, pods and tasks. */
  label: string;
  /** Workers to begin with. */
  replicas: number;
  /** Bounds for scaling by load; undefined where the registry gives a number. */
  scaling: { min: number; max: number; targetInFlight: number } | undefined;
  /** Variables of its entry that have no default: secrets, as a rule. */
  secrets: string[];
  /** Those that have one, and what its server inherits: may be set. */
  variables: string[];
  /** Memory of a worker with its server, in MB. */
  memoryMb: number;
  processes: number;
  /** MESH_DRAIN_DEADLINE_MS: time for the calls under way when it is told to stop. */
  drainMs: number;
  /** Until a worker that was told to stop may be killed, in seconds. */
  graceSeconds: number;
}

export const WORKER_PORT = 11_100;
export const GATEWAY_PORT = 10_010;
/** Of the plugin server's /metrics. */
export const METRICS_PORT = 10_011;
/** Of Kong's own health and metrics. */
export const STATUS_PORT = 8100;
/** User and group of our images (node's). */
export const IMAGE_USER = 1000;
/** Where secrets are mounted. */
export const SECRETS = '/run/secrets';

/** The worker itself: 88 MB idle, and what calls under way need. */
const WORKER_MB = 256;
/** Threads count, too, where an orchestrator counts processes; Node has about 11. */
const WORKER_PROCESSES = 64;
/** Servers that one worker has room for where callers or sessions have their own. */
const SERVERS_OF_A_POOL = 4;
/** Its server has to end, and Consul to be told, after the last call. */
const AFTER_DRAIN_SECONDS = 15;
const INHERITED = new Set(['HOME', 'PATH']);
const VARIABLE = /\$\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}/g;

/** @throws RegistryError */
export function readWorkloads(registryPath: string): Workload[] {
  // No service has this name: variables stay as they are written, so that no secret gets into a file.
  const workloads = loadRegistry(registryPath, { env: {}, only: '' }).services.map(toWorkload);
  const twice = workloads.find(({ label }, i) =>
    workloads.some((other, j) => j < i && other.label === label),
  );
  if (twice === undefined) return workloads;
  throw new Error(
    `${registryPath}: two services are "${twice.label}" where only letters, digits and "-" are allowed; rename "${twice.service}"`,
  );
}

function toWorkload(service: Service): Workload {
  const { instances, isolation, limits, pool, timeout_ms, tool_timeouts } = service;
  const { drainIdleMs, drainDeadlineMs } = workerSettings({});
  const servers = isolation === 'shared' ? 1 : Math.min(pool.max, SERVERS_OF_A_POOL);
  const longestMs = Math.max(timeout_ms, ...Object.values(tool_timeouts));
  const drainMs = Math.max(drainDeadlineMs, drainIdleMs + longestMs);
  const used = variablesOf(service);
  const inherited = service.env_allow.filter(name => !INHERITED.has(name));
  return {
    service: service.name,
    consulName: service.service_name,
    label: service.name.replaceAll('_', '-').replace(/-+$/, ''),
    // A container that is not there cannot start at the first call.
    replicas: Math.max(1, instanceCount(service)),
    scaling:
      typeof instances === 'number'
        ? undefined
        : { min: Math.max(1, instances.min), max: instances.max, targetInFlight: instances.target_in_flight },
    secrets: [...used].filter(([, hasDefault]) => !hasDefault).map(([name]) => name),
    variables: [...[...used].filter(([, hasDefault]) => hasDefault).map(([name]) => name), ...inherited],
    memoryMb: WORKER_MB + servers * limits.memory_mb,
    processes: WORKER_PROCESSES + servers * limits.processes,
    drainMs,
    graceSeconds: Math.ceil(drainMs / 1000) + AFTER_DRAIN_SECONDS,
  };
}

/** `${NAME}` in the fields that are filled in; true: it has a default wherever it stands. */
function variablesOf({ command, args, env, cwd, legacy_url }: Service): Map<string, boolean> {
  const found = new Map<string, boolean>();
  const texts = [command, ...args, ...Object.values(env), cwd ?? '', legacy_url ?? ''];
  for (const [, name = '', fallback] of texts.flatMap(text => [...text.matchAll(VARIABLE)]))
    found.set(name, (found.get(name) ?? true) && fallback !== undefined);
  return found;
}

/** Settings of every worker, whatever runs it; where it finds Consul and its address differ. */
export function workerEnvironment({ service, secrets, drainMs }: Workload): Record<string, string> {
  return {
    WORKER_SERVICE: service,
    WORKER_PORT: String(WORKER_PORT),
    MESH_REGISTRY: '/app/config/mcp-mesh-registry.yaml',
    MESH_IDENTITY_PUBLIC_KEYS_FILE: `${SECRETS}/identity-public-keys`,
    MESH_SERVICE_KEYS_FILE: `${SECRETS}/service-keys`,
    MESH_REDIS_URL_FILE: `${SECRETS}/redis-url`,
    MESH_DRAIN_DEADLINE_MS: String(drainMs),
    ...Object.fromEntries(secrets.map(name => [`${name}_FILE`, `${SECRETS}/${name}`])),
  };
}

/** Settings of every plugin server. */
export function gatewayEnvironment(): Record<string, string> {
  return {
    MESH_ACCESS_POLICY: '/etc/mcp-mesh/access.yaml',
    MESH_IDENTITY_PRIVATE_KEY_FILE: `${SECRETS}/identity-private-key`,
    MESH_ROOT_KEYS_FILE: `${SECRETS}/root-keys`,
    MESH_REDIS_URL_FILE: `${SECRETS}/redis-url`,
    MESH_GATEWAY_METRICS_PORT: String(METRICS_PORT),
    MESH_GATEWAY_METRICS_HOST: '0.0.0.0',
  };
}

/** Names of a worker's secret files. */
export function workerSecrets({ secrets }: Workload): string[] {
  return ['identity-public-keys', 'service-keys', 'redis-url', ...secrets];
}

export const GATEWAY_SECRETS = ['identity-private-key', 'root-keys', 'redis-url'];

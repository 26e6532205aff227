import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { ConsulAddress } from './consul.ts';
import type { MeshTls } from './tls.ts';
import { type TracingSettings, tracingSettings } from './trace-settings.ts';

/**
 * The only reader of the environment. A secret `NAME` may come as `NAME` or, by file, as `NAME_FILE`.
 * @throws Error naming the variable when a value makes no sense
 */

type Environment = Readonly<Record<string, string | undefined>>;

export interface WorkerSettings {
  registryPath: string;
  /** Service that the worker is for when its command line names none: images have one command line for all. */
  service: string | undefined;
  /** Port where its command line says none. */
  port: number | undefined;
  /** undefined: no Consul is configured, the worker runs on its own. */
  consul: ConsulAddress | undefined;
  /** Part of the instance id. */
  host: string;
  /** Address that others reach; default: that of the interface that routes to Consul. */
  advertiseAddress: string | undefined;
  /** undefined: plain HTTP between gateway and workers. */
  tls: MeshTls | undefined;
  /** Keys that sign sessions and prove the worker to gateways, newest first (32 bytes each, base64url). */
  serviceKeys: Buffer[];
  /** Ed25519 keys of gateways whose identity tokens are believed (mesh/identity.ts), newest first. */
  identityPublicKeys: string[];
  allowUnauthenticated: boolean;
  allowedHosts: string[];
  allowedOrigins: string[];
  logLevel: string;
  /** Longest time from spawn to the server's answer to initialize. */
  handshakeTimeoutMs: number;
  /** A stopping worker serves on until no request came for this long: gateways keep idle connections (Kong: 15 s). */
  drainIdleMs: number;
  /** Longest time a stopping worker waits for calls in flight. */
  drainDeadlineMs: number;
  /** Folder of what outlasts a restart, shared by the workers of a host. */
  stateDir: string | undefined;
  limits: LimitSettings;
  audit: AuditSettings;
  /** undefined: no traces. */
  tracing: TracingSettings | undefined;
}

export interface GatewaySettings {
  consul: ConsulAddress;
  /** access.yaml; undefined: nobody is let in. */
  policyPath: string | undefined;
  /** undefined: plain HTTP between gateway and workers. */
  tls: MeshTls | undefined;
  /** Seed of the Ed25519 key that signs identities (mesh/identity.ts). */
  identityPrivateKey: string | undefined;
  /** Service keys are derived from these, newest first (32 bytes each, base64url). */
  rootKeys: Buffer[];
  /** The gateway's address as callers see it, for OAuth; without a slash at its end. */
  publicUrl: string | undefined;
  /** Whether Kong's own authentication plugins run before ours and are believed. */
  kongConsumers: boolean;
  /** Folder of what outlasts a restart. */
  stateDir: string | undefined;
  limits: LimitSettings;
  audit: AuditSettings;
  /** undefined: no traces. */
  tracing: TracingSettings | undefined;
  allowedHosts: string[];
  allowedOrigins: string[];
  /** Port of the plugin's own /metrics. */
  metricsPort: number | undefined;
  /** Address that it listens on. */
  metricsHost: string;
}

export interface LimitSettings {
  /** undefined: counted in this process alone. */
  redisUrl: string | undefined;
  onStoreFailure: 'allow' | 'deny';
}

export interface AuditSettings {
  /** undefined: no audit log. */
  path: string | undefined;
  /** Whether arguments are written, too, and not only their hash. */
  withArguments: boolean;
}

export interface StartSettings {
  registryPath: string;
  policyPath: string;
  port: number;
  /** undefined: start the stand-in. */
  consul: ConsulAddress | undefined;
  logLevel: string;
  environment: Environment;
}

export interface ClientSettings {
  /** Base URL of the gateway that the command line calls. */
  url: string;
  /** API key or token of the caller. */
  key: string | undefined;
  /** File that it came from. */
  keyFile: string | undefined;
}

const DEFAULT_REGISTRY = 'config/mcp-mesh-registry.yaml';
const DEFAULT_POLICY = 'config/access.yaml';
const DEFAULT_CONSUL = 'http://127.0.0.1:8500';
const KEY_BYTES = 32;

export function workerSettings(env: Environment = process.env): WorkerSettings {
  return {
    registryPath: env.MESH_REGISTRY ?? DEFAULT_REGISTRY,
    service: env.WORKER_SERVICE || undefined,
    port: port(env, 'WORKER_PORT', 0) || undefined,
    consul: consulAddress(env),
    host: env.MESH_HOST ?? hostname(),
    advertiseAddress: env.MESH_ADVERTISE_ADDRESS,
    tls: tlsSettings(env),
    serviceKeys: keys(env, 'MESH_SERVICE_KEYS'),
    identityPublicKeys: list(secret(env, 'MESH_IDENTITY_PUBLIC_KEYS')),
    allowUnauthenticated: flag(env, 'MESH_ALLOW_UNAUTHENTICATED'),
    allowedHosts: list(env.MESH_ALLOWED_HOSTS),
    allowedOrigins: list(env.MESH_ALLOWED_ORIGINS),
    logLevel: env.MESH_LOG_LEVEL ?? 'info',
    handshakeTimeoutMs: whole(env, 'MESH_HANDSHAKE_TIMEOUT_MS', 60_000),
    drainIdleMs: whole(env, 'MESH_DRAIN_IDLE_MS', 16_000),
    drainDeadlineMs: whole(env, 'MESH_DRAIN_DEADLINE_MS', 60_000),
    stateDir: env.MESH_STATE_DIR || undefined,
    limits: limitSettings(env),
    audit: auditSettings(env),
    tracing: tracingSettings(env),
  };
}

export function gatewaySettings(env: Environment = process.env): GatewaySettings {
  return {
    consul: consulAddress(env) ?? { url: DEFAULT_CONSUL },
    policyPath: env.MESH_ACCESS_POLICY || undefined,
    tls: tlsSettings(env),
    identityPrivateKey: secret(env, 'MESH_IDENTITY_PRIVATE_KEY') || undefined,
    rootKeys: keys(env, 'MESH_ROOT_KEYS'),
    publicUrl: publicUrl(env),
    kongConsumers: flag(env, 'MESH_KONG_CONSUMERS'),
    stateDir: env.MESH_STATE_DIR || undefined,
    limits: limitSettings(env),
    audit: auditSettings(env),
    tracing: tracingSettings(env),
    allowedHosts: list(env.MESH_ALLOWED_HOSTS),
    allowedOrigins: list(env.MESH_ALLOWED_ORIGINS),
    metricsPort: port(env, 'MESH_GATEWAY_METRICS_PORT', 0) || undefined,
    metricsHost: env.MESH_GATEWAY_METRICS_HOST || '127.0.0.1',
  };
}

export function startSettings(env: Environment = process.env): StartSettings {
  return {
    registryPath: env.MESH_REGISTRY ?? DEFAULT_REGISTRY,
    policyPath: env.MESH_ACCESS_POLICY || DEFAULT_POLICY,
    port: port(env, 'MESH_PORT', 10010),
    consul: consulAddress(env),
    logLevel: env.MESH_LOG_LEVEL ?? 'warn',
    environment: env,
  };
}

export function clientSettings(env: Environment = process.env): ClientSettings {
  return {
    url: env.MESH_URL || `http://127.0.0.1:${port(env, 'MESH_PORT', 10010)}`,
    key: secret(env, 'MESH_API_KEY') || undefined,
    keyFile: env.MESH_API_KEY ? undefined : env.MESH_API_KEY_FILE || undefined,
  };
}

/**
 * The environment that `${VAR}` in the registry is read from; `VAR_FILE` names a file for what is not there.
 * A value is read when it is asked for: most variables of that form (SSL_CERT_FILE) are nobody's secret.
 */
export function registryEnvironment(env: Environment = process.env): Environment {
  const get = (target: Environment, name: string | symbol) =>
    typeof name === 'string' ? secret(target, name) : undefined;
  return new Proxy(env, { get });
}

/** The variables of our own environment that a child may inherit: the named ones and nothing else. */
export function inheritedEnvironment(names: readonly string[]): Record<string, string> {
  const inherited: Record<string, string> = {};
  for (const name of names) {
    const value = process.env[name];
    if (value !== undefined) inherited[name] = value;
  }
  return inherited;
}

/** As Consul's own programs read it: host:port or a URL, with CONSUL_HTTP_SSL for the former. */
function consulAddress(env: Environment): ConsulAddress | undefined {
  const given = env.CONSUL_HTTP_ADDR;
  if (!given) return undefined;
  const scheme = flag(env, 'CONSUL_HTTP_SSL') ? 'https' : 'http';
  const text = given.includes('://') ? given : `${scheme}://${given}`;
  if (!URL.canParse(text)) throw new Error(`CONSUL_HTTP_ADDR: "${given}" is neither host:port nor a URL`);
  const token = secret(env, 'CONSUL_HTTP_TOKEN');
  return { url: new URL(text).origin, ...(token ? { token } : {}) };
}

function limitSettings(env: Environment): LimitSettings {
  const onStoreFailure = env.MESH_ON_STORE_FAILURE || 'allow';
  if (onStoreFailure !== 'allow' && onStoreFailure !== 'deny') {
    throw new Error(`MESH_ON_STORE_FAILURE: "${onStoreFailure}" is neither allow nor deny`);
  }
  return { redisUrl: secret(env, 'MESH_REDIS_URL') || undefined, onStoreFailure };
}

function auditSettings(env: Environment): AuditSettings {
  return { path: env.MESH_AUDIT_LOG || undefined, withArguments: flag(env, 'MESH_AUDIT_ARGUMENTS') };
}

function tlsSettings(env: Environment): MeshTls | undefined {
  const [cert, key, ca] = ['MESH_TLS_CERT', 'MESH_TLS_KEY', 'MESH_TLS_CA'].map(name => secret(env, name));
  if (cert && key && ca) return { cert, key, ca };
  if (cert || key || ca) throw new Error('MESH_TLS_CERT, MESH_TLS_KEY, MESH_TLS_CA: give all three, or none');
  return undefined;
}

function publicUrl(env: Environment): string | undefined {
  const text = env.MESH_PUBLIC_URL;
  if (!text) return undefined;
  if (!/^https?:$/.test(URL.parse(text)?.protocol ?? '')) {
    throw new Error(`MESH_PUBLIC_URL: "${text}" is no http(s) URL`);
  }
  return text.replace(/\/+$/, '');
}

function secret(env: Environment, name: string): string | undefined {
  const path = env[`${name}_FILE`];
  if (env[name] || !path) return env[name];
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new Error(`${name}_FILE: cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}

function keys(env: Environment, name: string): Buffer[] {
  return list(secret(env, name)).map((text, index) => {
    const key = Buffer.from(text, 'base64url');
    if (key.length !== KEY_BYTES) {
      throw new Error(
        `${name}: key ${index + 1} has ${key.length} bytes; it must be ${KEY_BYTES} bytes in base64url`,
      );
    }
    return key;
  });
}

function list(text: string | undefined): string[] {
  return (text ?? '')
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '');
}

function flag(env: Environment, name: string): boolean {
  const text = env[name] ?? '';
  if (['', '0', 'false', 'no'].includes(text.toLowerCase())) return false;
  if (['1', 'true', 'yes'].includes(text.toLowerCase())) return true;
  throw new Error(`${name}: "${text}" is neither true nor false`);
}

function port(env: Environment, name: string, fallback: number): number {
  const value = whole(env, name, fallback);
  if (value > 65535) throw new Error(`${name}: ${value} is not a port`);
  return value;
}

function whole(env: Environment, name: string, fallback: number): number {
  const text = env[name];
  if (!text) return fallback;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${name}: "${text}" is not a whole number`);
  return value;
}

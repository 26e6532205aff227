import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { ConsulAddress } from './consul.ts';

/**
 * The only reader of the environment. A secret `NAME` may come as `NAME` or, by file, as `NAME_FILE`.
 * @throws Error naming the variable when a value makes no sense
 */

type Environment = Readonly<Record<string, string | undefined>>;

export interface WorkerSettings {
  registryPath: string;
  /** undefined: no Consul is configured, the worker runs on its own. */
  consul: ConsulAddress | undefined;
  /** Part of the instance id. */
  host: string;
  /** Address that others reach; default: that of the interface that routes to Consul. */
  advertiseAddress: string | undefined;
  /** Keys that sign sessions, newest first (32 bytes each, base64url). */
  serviceKeys: Buffer[];
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
}

export interface GatewaySettings {
  consul: ConsulAddress;
  allowedHosts: string[];
  allowedOrigins: string[];
  /** Loopback port of the plugin's own /metrics. */
  metricsPort: number | undefined;
}

export interface StartSettings {
  registryPath: string;
  port: number;
  /** undefined: start the stand-in. */
  consul: ConsulAddress | undefined;
  logLevel: string;
  environment: Environment;
}

const DEFAULT_REGISTRY = 'config/mcp-mesh-registry.yaml';
const DEFAULT_CONSUL = 'http://127.0.0.1:8500';
const KEY_BYTES = 32;

export function workerSettings(env: Environment = process.env): WorkerSettings {
  return {
    registryPath: env.MESH_REGISTRY ?? DEFAULT_REGISTRY,
    consul: consulAddress(env),
    host: env.MESH_HOST ?? hostname(),
    advertiseAddress: env.MESH_ADVERTISE_ADDRESS,
    serviceKeys: keys(env, 'MESH_SERVICE_KEYS'),
    allowUnauthenticated: flag(env, 'MESH_ALLOW_UNAUTHENTICATED'),
    allowedHosts: list(env.MESH_ALLOWED_HOSTS),
    allowedOrigins: list(env.MESH_ALLOWED_ORIGINS),
    logLevel: env.MESH_LOG_LEVEL ?? 'info',
    handshakeTimeoutMs: whole(env, 'MESH_HANDSHAKE_TIMEOUT_MS', 60_000),
    drainIdleMs: whole(env, 'MESH_DRAIN_IDLE_MS', 16_000),
    drainDeadlineMs: whole(env, 'MESH_DRAIN_DEADLINE_MS', 60_000),
  };
}

export function gatewaySettings(env: Environment = process.env): GatewaySettings {
  return {
    consul: consulAddress(env) ?? { url: DEFAULT_CONSUL },
    allowedHosts: list(env.MESH_ALLOWED_HOSTS),
    allowedOrigins: list(env.MESH_ALLOWED_ORIGINS),
    metricsPort: port(env, 'MESH_GATEWAY_METRICS_PORT', 0) || undefined,
  };
}

export function startSettings(env: Environment = process.env): StartSettings {
  return {
    registryPath: env.MESH_REGISTRY ?? DEFAULT_REGISTRY,
    port: port(env, 'MESH_PORT', 10010),
    consul: consulAddress(env),
    logLevel: env.MESH_LOG_LEVEL ?? 'warn',
    environment: env,
  };
}

/** The environment that `${VAR}` in the registry is read from. */
export function registryEnvironment(): Environment {
  return process.env;
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

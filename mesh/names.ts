import { createHash } from 'node:crypto';

/** What gateway and workers must spell alike. */

export const SERVICE_NAME_PATTERN = /^[a-z0-9][a-z0-9_-]{0,62}$/;

export const MCP_PATH = '/api/v1/mcp';
export const MESH_PATH = '/api/v1/mesh';

/** Tag of every mesh service in Consul. */
export const CONSUL_TAG = 'mcp';

export const METRIC_PREFIX = 'mcp_mesh_';

export const HEADERS = {
  callId: 'x-request-id',
  capability: 'x-mcp-capability',
  session: 'mcp-session-id',
  protocolVersion: 'mcp-protocol-version',
  /** `mesh`: a new session that must not go to a service's old deployment. */
  side: 'x-mcp-side',
  /** Gateway → worker: the signed identity of the caller. */
  identity: 'x-mesh-identity',
} as const;

/** Sub-paths of a service that a worker answers, as pattern and as shown to a caller who missed them. */
export const WORKER_ROUTES = ['/mcp', '/execute', '/tools', '/tools/<tool>', '/openapi.json'] as const;

/** A gateway looks through all instances of a service for the owner of each session's request. */
const ownerHashes = new Map<string, string>();
const OWNER_HASHES_MAX = 10_000;

const CALL_ID_PATTERN = /^[A-Za-z0-9._:-]{8,128}$/;

/** Consul service name of a service that does not choose its own: `_` is not allowed in DNS labels. */
export function consulName(service: string): string {
  return `mcp-${service.replaceAll('_', '-')}`;
}

/** Consul id of an instance: stable over re-registration, unique as host and port are. */
export function instanceId(service: string, host: string, port: number): string {
  return `${consulName(service)}-${host}-${port}`;
}

/** Opaque short name of an instance, as it stands in session ids: 48 bits of SHA-256, base64url. */
export function ownerHash(instance: string): string {
  const known = ownerHashes.get(instance);
  if (known !== undefined) return known;
  const hash = createHash('sha256').update(instance).digest('base64url').slice(0, 8);
  if (ownerHashes.size >= OWNER_HASHES_MAX) ownerHashes.clear();
  ownerHashes.set(instance, hash);
  return hash;
}

/** The caller's id for the call when it is harmless in logs and headers, else undefined. */
export function acceptCallId(value: unknown): string | undefined {
  return typeof value === 'string' && CALL_ID_PATTERN.test(value) ? value : undefined;
}

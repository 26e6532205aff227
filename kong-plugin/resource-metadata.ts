import type { AccessPolicy } from '../mesh/access-policy.ts';
import { type ErrorCode, MeshError } from '../mesh/errors.ts';
import { permissionsOf } from '../mesh/grants.ts';
import { MCP_PATH, SERVICE_NAME_PATTERN } from '../mesh/names.ts';

/** Why nobody is known to be behind a request; for metrics, logs and `challenge`. */
export type AuthenticationFault =
  | 'no_policy'
  | 'no_credential'
  | 'unsupported'
  | 'ambiguous'
  | 'bad_key'
  | 'expired_key'
  | 'bad_token'
  | 'expired_token'
  | 'no_issuer_keys';

interface AuthenticationErrorOptions {
  retryAfterMs?: number;
  cause?: unknown;
}

/** A refusal by `authenticate`: 401, or 400 where the request itself makes no sense (RFC 6750 §3.1). */
export class AuthenticationError extends MeshError {
  readonly reason: AuthenticationFault;

  constructor(reason: AuthenticationFault, detail: string, options: AuthenticationErrorOptions = {}) {
    const code: ErrorCode = reason === 'ambiguous' ? 'invalid_request' : 'unauthenticated';
    super(code, { detail, delivered: 'no', ...options });
    this.reason = reason;
  }
}

export interface ResourceMetadata {
  resource: string;
  authorization_servers: string[];
  bearer_methods_supported: string[];
  scopes_supported?: string[];
  resource_name: string;
}

interface ChallengeOptions {
  /** URL by which callers reach the gateway, as `https://mesh.example.com`. */
  publicUrl: string | undefined;
  policy: AccessPolicy | undefined;
  /** Of the caller, when it is known: more scope helps only the holder of a token. */
  principal?: string | undefined;
}

/** Path of the metadata of a service, behind the origin of the public URL; `<path of the public URL>` in between. */
export const WELL_KNOWN = '/.well-known/oauth-protected-resource';

/** RFC 6750 §3.1; what carries no token, or cannot be judged now, gets no error code: the client keeps its token. */
const BEARER_ERRORS: Partial<Record<AuthenticationFault, string>> = {
  ambiguous: 'invalid_request',
  bad_key: 'invalid_token',
  expired_key: 'invalid_token',
  bad_token: 'invalid_token',
  expired_token: 'invalid_token',
};
/** Claims that hold OAuth scopes: with one of these as `roles_claim` a role is asked for as a scope. */
const SCOPE_CLAIMS = new Set(['scope', 'scp']);
/** RFC 6749 §3.3. */
const SCOPE_PATTERN = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

let parsed = { publicUrl: '', origin: '', pathname: '' };

/**
 * The value of `WWW-Authenticate` for a refusal (RFC 6750 §3, RFC 9728 §5.1, MCP authorization); undefined when the
 * error is none of authentication or scope, and for a 403 that no other token would cure.
 */
export function challenge(
  error: MeshError,
  service: string | undefined,
  { publicUrl, policy, principal }: ChallengeOptions,
): string | undefined {
  const refused = error instanceof AuthenticationError;
  const scopeLacks = error.code === 'forbidden' && principal?.startsWith('jwt:') === true;
  if (!refused && !scopeLacks && error.code !== 'unauthenticated') return undefined;
  const fault = scopeLacks ? 'insufficient_scope' : refused && BEARER_ERRORS[error.reason];
  const oauth = policy !== undefined && policy.issuers.length > 0 && publicUrl !== undefined;
  const scope = oauth ? scopeFor(policy, service) : undefined;
  const parameters = [
    oauth ? parameter('resource_metadata', metadataUrl(publicUrl, service)) : parameter('realm', 'mcp-mesh'),
    fault ? parameter('error', fault) : undefined,
    scope ? parameter('scope', scope) : undefined,
  ];
  return `Bearer ${parameters.filter(text => text !== undefined).join(', ')}`;
}

/**
 * The OAuth 2.0 protected resource metadata (RFC 9728) of a service, or of the whole mesh; undefined when no issuer is
 * configured. It tells nothing of whether the service exists.
 */
export function resourceMetadata(
  policy: AccessPolicy | undefined,
  publicUrl: string,
  service: string | undefined,
): ResourceMetadata | undefined {
  if (!policy || policy.issuers.length === 0) return undefined;
  const scopes = rolesAsScopes(policy);
  return {
    resource: resourceUri(publicUrl, service),
    authorization_servers: [...new Set(policy.issuers.map(({ issuer }) => issuer))],
    bearer_methods_supported: ['header'],
    ...(scopes.length > 0 ? { scopes_supported: scopes } : {}),
    resource_name: safeName(service) ?? 'mcp-mesh',
  };
}

/** Canonical URI of a service (RFC 8707, MCP authorization): what its tokens' audience names. */
export function resourceUri(publicUrl: string, service: string | undefined): string {
  const { origin, pathname } = parse(publicUrl);
  return `${origin}${servicePath(pathname, service)}`;
}

/** RFC 9728 §3.1: the well-known part goes between the host and the path of the resource. */
function metadataUrl(publicUrl: string, service: string | undefined): string {
  const { origin, pathname } = parse(publicUrl);
  return `${origin}${WELL_KNOWN}${servicePath(pathname, service)}`;
}

/** There is one public URL, and refusing must not cost more than serving. */
function parse(publicUrl: string): typeof parsed {
  if (parsed.publicUrl === publicUrl) return parsed;
  const { origin, pathname } = new URL(publicUrl);
  parsed = { publicUrl, origin, pathname: pathname.replace(/\/+$/, '') };
  return parsed;
}

function servicePath(prefix: string, service: string | undefined): string {
  const name = safeName(service);
  return `${prefix}${MCP_PATH}${name === undefined ? '' : `/${name}`}`;
}

/** The name stands in a header and a URL: one that cannot be a service's is left out. */
function safeName(service: string | undefined): string | undefined {
  return service !== undefined && SERVICE_NAME_PATTERN.test(service) ? service : undefined;
}

/** One role that lets a caller into the service, the first of the file: a client asks for all scopes it is told. */
function scopeFor(policy: AccessPolicy, service: string | undefined): string | undefined {
  if (service === undefined) return undefined;
  return rolesAsScopes(policy).find(name => permissionsOf(policy, [name], service) !== undefined);
}

/** Roles by their names as scopes; `offline_access` is no permission (MCP authorization) and is never asked for. */
function rolesAsScopes({ issuers, roles }: AccessPolicy): string[] {
  if (!issuers.some(({ rolesClaim }) => SCOPE_CLAIMS.has(rolesClaim))) return [];
  return [...roles.keys()].filter(name => SCOPE_PATTERN.test(name) && name !== 'offline_access');
}

/** A quoted-string (RFC 9110 §5.6.4), without the control characters that would end the header line. */
function parameter(name: string, value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones to take out
  const printable = value.replace(/[\x00-\x1f\x7f-\uffff]/g, '');
  return `${name}="${printable.replace(/["\\]/g, '\\$&')}"`;
}

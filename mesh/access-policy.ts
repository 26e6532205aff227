import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { crossCheck, expiredKeys } from './access-policy-checks.ts';
import { accessPolicySchema, type PolicyFields } from './access-policy-schema.ts';
import { parseYaml, toFaults } from './yaml-faults.ts';

/** Who may do what, as the access policy file says it; made by `parseAccessPolicy` and not changed afterwards. */
export interface AccessPolicy {
  /** First 12 hex digits of the SHA-256 of the file's text. */
  version: string;
  /** Role of callers without credentials; null: they are refused. */
  anonymous: string | null;
  /** CIDR blocks that instances may be registered in. */
  allowedNetworks: string[];
  /** One for each key, also for those that a rotation replaced and that have not expired: ids may repeat. */
  apiKeys: ApiKey[];
  issuers: JwtIssuer[];
  roles: ReadonlyMap<string, Role>;
}

export interface ApiKey {
  id: string;
  /** SHA-256 of the key, 32 bytes (`hashApiKey`). */
  hash: Buffer;
  roles: string[];
  /** Milliseconds since the epoch; undefined: never. */
  expires: number | undefined;
}

export interface JwtIssuer {
  issuer: string;
  jwksUri: string;
  /** Accepted: this, or this + '/' + the service. */
  audience: string;
  algorithms: string[];
  rolesClaim: string;
}

export type MeshAction = 'register' | 'deregister';

export interface Role {
  allow: Rule[];
  deny: Rule[];
  mesh: MeshAction[];
  /** HTTP requests per window of seconds. */
  rateLimit: { requests: number; windowS: number } | undefined;
  /** Tool calls, times their cost, per UTC day or month. */
  quota: { calls: number; period: 'day' | 'month' } | undefined;
  /** Requests at once. */
  inFlight: number | undefined;
  /** Calls per window of seconds, by glob of tools. */
  toolRates: { pattern: string; calls: number; windowS: number }[];
}

/** Globs. A rule that names no tools, prompts or resources covers the whole service; else only what it names. */
export interface Rule {
  service: string;
  tools?: string[];
  prompts?: string[];
  resources?: string[];
}

export interface LoadedPolicy {
  policy: AccessPolicy;
  /** What is odd but no fault, as `file:line: field: what, and the cure`. */
  warnings: string[];
}

interface ParseOptions {
  /** What errors call the file. */
  path: string;
  /** Milliseconds since the epoch. */
  now?: () => number;
}

const VERSION_DIGITS = 12;

/** The access policy cannot be used; the message has one `file:line: field: what, and the cure` per line. */
export class AccessPolicyError extends Error {
  override name = 'AccessPolicyError';
}

/** @throws AccessPolicyError with every fault that was found */
export function loadAccessPolicy(path: string, options: Omit<ParseOptions, 'path'> = {}): LoadedPolicy {
  return parseAccessPolicy(readPolicyText(path), { ...options, path });
}

/** @throws AccessPolicyError that names the file and the system's reason */
export function readPolicyText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

export function unreadable(path: string, cause: unknown): AccessPolicyError {
  const { code = String(cause) } = cause as NodeJS.ErrnoException;
  const hint = 'MESH_ACCESS_POLICY names the access policy';
  return new AccessPolicyError(`${path}: cannot be read (${code}); ${hint}`, { cause });
}

/**
 * Reads an access policy.
 * @throws AccessPolicyError with every fault that was found
 */
export function parseAccessPolicy(text: string, { path, now = Date.now }: ParseOptions): LoadedPolicy {
  const fail = (texts: string[]): never => {
    throw new AccessPolicyError(texts.join('\n'));
  };
  // A file that is being written is empty for a moment; it would shut everybody out.
  if (text.trim() === '') return fail([`${path}:1: the file is empty; write at least "roles: {}"`]);
  const { value, errors, toText } = parseYaml(text, path);
  if (errors.length > 0) return fail(errors);
  const parsed = accessPolicySchema.safeParse(value, { reportInput: true });
  if (!parsed.success) {
    const faults = parsed.error.issues.flatMap(issue => toFaults(issue, [], accessPolicySchema));
    return fail(faults.map(toText));
  }
  const file = parsed.data;
  const roles = new Map(Object.entries(file.roles).map(([name, fields]) => [name, toRole(fields)]));
  const faults = crossCheck(file, roles);
  if (faults.length > 0) return fail(faults.map(toText));
  const policy: AccessPolicy = {
    version: createHash('sha256').update(text).digest('hex').slice(0, VERSION_DIGITS),
    anonymous: file.anonymous,
    allowedNetworks: file.allowed_networks,
    apiKeys: file.api_keys.flatMap(toApiKeys),
    issuers: file.jwt.map(({ jwks_uri: jwksUri, roles_claim: rolesClaim, ...rest }) => ({
      ...rest,
      jwksUri,
      rolesClaim,
    })),
    roles,
  };
  return { policy, warnings: expiredKeys(file, now()).map(toText) };
}

/** What the policy keeps of an API key: the SHA-256 of its text, prefix included. A key is random: no salt is needed. */
export function hashApiKey(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}

function toRole({ rate_limit, in_flight, tool_rates, quota, ...rest }: PolicyFields['roles'][string]): Role {
  return {
    ...rest,
    rateLimit: rate_limit && { requests: rate_limit.requests, windowS: rate_limit.window_s },
    quota,
    inFlight: in_flight,
    toolRates: tool_rates.map(({ tool, calls, window_s }) => ({ pattern: tool, calls, windowS: window_s })),
  };
}

function toApiKeys({ id, hash, roles, expires, previous }: PolicyFields['api_keys'][number]): ApiKey[] {
  const end = expires ? Date.parse(expires) : undefined;
  return [
    { id, hash: digestOf(hash), roles, expires: end },
    // The end of the holder's access ends the former keys, too.
    ...previous.map(former => ({
      id,
      hash: digestOf(former.hash),
      roles,
      expires: Math.min(Date.parse(former.expires), end ?? Number.POSITIVE_INFINITY),
    })),
  ];
}

function digestOf(hash: string): Buffer {
  return Buffer.from(hash.slice('sha256:'.length), 'hex');
}

import type { AccessPolicy, MeshAction, Role, Rule } from './access-policy.ts';
import { BoundedCache } from './bounded-cache.ts';
import { MeshError } from './errors.ts';
import { matchesGlob } from './glob.ts';
import { SERVICE_NAME_PATTERN } from './names.ts';
import { spellingsOf } from './resource-uri.ts';
import { type Limits, limitsOf } from './role-limits.ts';

export { matchesGlob } from './glob.ts';
export type { Limits } from './role-limits.ts';

/** What one principal may do in one service: a role's rules without the service, which is settled. */
export interface Grants {
  allow: GrantRule[];
  deny: GrantRule[];
}

/** Globs. A rule that names nothing covers the whole service; else only what it names. */
export interface GrantRule {
  tools?: string[];
  prompts?: string[];
  resources?: string[];
}

export type Kind = 'tools' | 'prompts' | 'resources';

/** What a principal may do in a service, and how much; shared between callers, not to be changed. */
export interface Permissions {
  grants: Grants;
  limits: Limits;
}

/** Bytes of JSON that grants and limits may take: in base64url, signed and with the rest, about 6 KB of a header. */
export const GRANTS_BYTES_MAX = 4096;

const KINDS = ['tools', 'prompts', 'resources'] as const;
/** Roles × services in use; an entry with two roles takes 0.5 KB. */
const CACHED_MAX = 10_000;

/** A policy that was replaced takes its answers along. */
const caches = new WeakMap<AccessPolicy, BoundedCache<string, { permissions: Permissions | undefined }>>();

/**
 * What callers with these roles may do in a service; undefined when it is nothing at all, also for a service that does
 * not exist. Roles that the policy does not know are skipped: tokens name what they like. Grants are the union of the
 * roles', denials too; limits are those of the most generous role of those that let the caller in.
 * @throws MeshError `forbidden` when the grants of many roles together do not fit into an identity header
 */
export function permissionsOf(
  policy: AccessPolicy,
  roles: readonly string[],
  service: string,
): Permissions | undefined {
  if (!SERVICE_NAME_PATTERN.test(service)) return undefined;
  const known = [...new Set(roles)].filter(name => policy.roles.has(name)).sort();
  const key = JSON.stringify([service, ...known]);
  const cache = caches.get(policy) ?? new BoundedCache(CACHED_MAX);
  caches.set(policy, cache);
  const cached = cache.get(key);
  if (cached) return cached.permissions;
  const permissions = compute(
    known.flatMap(name => policy.roles.get(name) ?? []),
    service,
  );
  const bytes = permissions ? sizeOf(permissions) : 0;
  if (bytes > GRANTS_BYTES_MAX) {
    const detail = `the roles ${known.join(', ')} together take ${bytes} bytes of grants for ${service}, ${GRANTS_BYTES_MAX} at most; fewer roles will do`;
    throw new MeshError('forbidden', { detail });
  }
  cache.set(key, { permissions });
  return permissions;
}

/** Whether one of the roles allows an action of /api/v1/mesh. */
export function mayMesh(policy: AccessPolicy, roles: readonly string[], action: MeshAction): boolean {
  return roles.some(name => policy.roles.get(name)?.mesh.includes(action) ?? false);
}

/**
 * Whether the grants let a caller see and use a tool or prompt of that name, or a resource of that URI. Names are
 * compared letter for letter. A URI may have several spellings for one resource: it is denied by any of them, and one
 * whose path climbs (`..`) is out of reach of whom not all resources are open to.
 */
export function mayUse(grants: Grants, kind: Kind, name: string): boolean {
  if (kind !== 'resources') {
    return (
      grants.allow.some(rule => covers(rule, kind, name)) &&
      !grants.deny.some(rule => covers(rule, kind, name))
    );
  }
  const restricted = !grants.allow.some(isWhole) || grants.deny.some(rule => isWhole(rule) || rule.resources);
  if (!restricted) return true;
  const spellings = spellingsOf(name);
  if (!spellings || !grants.allow.some(rule => covers(rule, kind, name))) return false;
  return !grants.deny.some(rule => spellings.some(spelling => covers(rule, kind, spelling)));
}

/** The service for which these roles take the most bytes of grants: a named one, or `*` for those only globs match. */
export function largestGrants(roles: readonly Role[]): { service: string; bytes: number } {
  const rules = roles.flatMap(role => [...role.allow, ...role.deny]);
  const named = new Set(rules.map(rule => rule.service).filter(service => !service.includes('*')));
  const sizes = [...named].map(service => ({
    service,
    bytes: uncutSize(roles, rule => matchesGlob(rule.service, service)),
  }));
  // There may be a service that matches all of the globs.
  sizes.push({ service: '*', bytes: uncutSize(roles, rule => rule.service.includes('*')) });
  return sizes.reduce((a, b) => (b.bytes > a.bytes ? b : a));
}

function compute(roles: readonly Role[], service: string): Permissions | undefined {
  const matches = (rule: Rule) => matchesGlob(rule.service, service);
  // A role that only denies, or is about other services, has no say in how much the caller may use of this one.
  const granting = roles.filter(role => role.allow.some(matches));
  const allow = distinct(granting.flatMap(role => role.allow.filter(matches)));
  const deny = distinct(roles.flatMap(role => role.deny.filter(matches)));
  if (allow.length === 0 || deny.some(isWhole)) return undefined;
  const whole = allow.find(isWhole);
  return { grants: { allow: whole ? [whole] : allow, deny }, limits: limitsOf(granting) };
}

/** Nothing left out, and each role's limits for itself: no choice among these roles, for no service, takes more. */
function uncutSize(roles: readonly Role[], matches: (rule: Rule) => boolean): number {
  const allow = roles.flatMap(role => role.allow.filter(matches)).map(withoutService);
  const deny = roles.flatMap(role => role.deny.filter(matches)).map(withoutService);
  if (allow.length === 0) return 0;
  const limits = roles.map(role => sizeOf(limitsOf([role])));
  return sizeOf({ grants: { allow, deny }, limits: {} }) + limits.reduce((sum, bytes) => sum + bytes, 0);
}

function sizeOf(part: Permissions | Limits): number {
  return Buffer.byteLength(JSON.stringify(part));
}

function distinct(rules: readonly Rule[]): GrantRule[] {
  return [...new Map(rules.map(withoutService).map(rule => [JSON.stringify(rule), rule])).values()];
}

function withoutService({ service: _service, ...rule }: Rule): GrantRule {
  return rule;
}

function covers(rule: GrantRule, kind: Kind, name: string): boolean {
  return isWhole(rule) || (rule[kind]?.some(pattern => matchesGlob(pattern, name)) ?? false);
}

/** Whether nothing in the service is out of reach. */
export function isUnrestricted({ allow, deny }: Grants): boolean {
  return deny.length === 0 && allow.some(isWhole);
}

function isWhole(rule: GrantRule): boolean {
  return KINDS.every(kind => rule[kind] === undefined);
}

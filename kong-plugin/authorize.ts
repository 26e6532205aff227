import type { AccessPolicy } from '../mesh/access-policy.ts';
import { MeshError } from '../mesh/errors.ts';
import { type Permissions, permissionsOf } from '../mesh/grants.ts';
import type { Identity } from '../mesh/identity.ts';
import type { Principal } from './api-keys.ts';
import type { KnownService } from './discovery.ts';

/** A caller who may use a service, and what its workers are told of that. */
export interface Authorized {
  principal: string;
  permissions: Permissions;
  claims: Omit<Identity, 'iat' | 'exp'>;
}

/** @throws MeshError `forbidden`, whether the service exists or not */
export function authorize(
  { principal, roles }: Principal,
  policy: AccessPolicy | undefined,
  service: string,
): Authorized {
  const permissions = policy && permissionsOf(policy, roles, service);
  if (!permissions) {
    throw new MeshError('forbidden', { detail: `your roles do not allow the service "${service}"` });
  }
  const { grants, limits } = permissions;
  const claims = { sub: principal, roles, svc: service, grants, limits, policy_version: policy.version };
  return { principal, permissions, claims };
}

/** The services that a caller may use. */
export function visibleTo(
  { roles }: Principal,
  policy: AccessPolicy | undefined,
  services: KnownService[],
): KnownService[] {
  return policy === undefined ? [] : services.filter(({ name }) => permissionsOf(policy, roles, name));
}

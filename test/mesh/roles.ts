import { type AccessPolicy, parseAccessPolicy } from '../../mesh/access-policy.ts';

/** A policy of these roles, as access.yaml has them. */
export function policyOf(roles: string): AccessPolicy {
  return parseAccessPolicy(`roles:\n${roles.replace(/^/gm, '  ')}`, { path: 'access.yaml' }).policy;
}

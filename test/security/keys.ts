import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { stringify } from 'yaml';
import { type AccessPolicy, parseAccessPolicy } from '../../mesh/access-policy.ts';
import { permissionsOf } from '../../mesh/grants.ts';
import { createSigner, parsePrivateKey } from '../../mesh/identity.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { HEADERS } from '../../mesh/names.ts';
import type { WorkerSettings } from '../../mesh/settings.ts';

/** The keys of one mesh. */
export interface MeshKeys {
  root: Buffer;
  identityPrivate: string;
  identityPublic: string;
}

export function makeKeys(): MeshKeys {
  const { d, x } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  return { root: randomBytes(32), identityPrivate: String(d), identityPublic: String(x) };
}

/** What a worker of a service gets of them. */
export function workerKeys(keys: MeshKeys, service: string): Partial<WorkerSettings> {
  return {
    serviceKeys: [deriveServiceKey(keys.root, service)],
    identityPublicKeys: [keys.identityPublic],
  };
}

export function policyOf(fields: object): AccessPolicy {
  return parseAccessPolicy(stringify({ version: 1, ...fields }), { path: 'access.yaml' }).policy;
}

interface Caller {
  service: string;
  policy: AccessPolicy;
  roles: string[];
  principal?: string;
  /** Milliseconds since the epoch, of the gateway's clock. */
  now?: () => number;
}

/** The header by which a gateway with these keys vouches for a caller. @throws Error when the policy does not let him in */
export function identityOf(
  keys: MeshKeys,
  { service, policy, roles, principal = 'key:caller', now = Date.now }: Caller,
): Record<string, string> {
  const permissions = permissionsOf(policy, roles, service);
  if (!permissions) throw new Error(`${roles.join(', ')} may not use ${service}`);
  const sign = createSigner({ privateKey: parsePrivateKey(keys.identityPrivate), now });
  const { grants, limits } = permissions;
  const claims = { sub: principal, roles, svc: service, grants, limits, policy_version: policy.version };
  return { [HEADERS.identity]: sign(claims) };
}

/** An API key, and its hash as the policy has it. */
export function newApiKey(): { key: string; hash: string } {
  const key = `mk_${randomBytes(32).toString('base64url')}`;
  return { key, hash: `sha256:${createHash('sha256').update(key).digest('hex')}` };
}

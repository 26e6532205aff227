import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { deriveServiceKey } from '../../mesh/keys.ts';

/** The keys that gateways and workers have among themselves, as environment files (`NAME=value`). */

interface IdentityKeys {
  /** Ed25519 seed, 32 bytes in base64url. */
  privateKey: string;
  /** Ed25519 public key, 32 bytes in base64url. */
  publicKey: string;
}

const ROOT_KEY_BYTES = 32;

/** Environment files of a new mesh, by name: one for gateways, one for the workers of each service. */
export function newMeshKeys(services: readonly string[]): Map<string, string> {
  const { privateKey, publicKey } = newIdentityKeys();
  const rootKey = randomBytes(ROOT_KEY_BYTES);
  return new Map([
    [
      'gateway.env',
      `MESH_IDENTITY_PRIVATE_KEY=${privateKey}\nMESH_ROOT_KEYS=${rootKey.toString('base64url')}\n`,
    ],
    ...services.map((service): [string, string] => [
      `worker-${service}.env`,
      `MESH_IDENTITY_PUBLIC_KEYS=${publicKey}\nMESH_SERVICE_KEYS=${serviceKey(rootKey, service)}\n`,
    ]),
  ]);
}

/** A new identity key and how to bring it in while calls go on. */
export function identityRotation(): string {
  const { privateKey, publicKey } = newIdentityKeys();
  return `# 1. All workers: believe the new key, too. Then restart them.
MESH_IDENTITY_PUBLIC_KEYS=${publicKey},<the present value>

# 2. All gateways: sign by it. Then restart them.
MESH_IDENTITY_PRIVATE_KEY=${privateKey}

# 3. All workers, two minutes later: believe only the new one. Then restart them.
MESH_IDENTITY_PUBLIC_KEYS=${publicKey}
`;
}

/** A new root key, the service keys that follow from it, and how to bring them in while sessions go on. */
export function rootRotation(services: readonly string[]): string {
  const rootKey = randomBytes(ROOT_KEY_BYTES);
  const root = rootKey.toString('base64url');
  const each = (value: (key: string) => string) =>
    services
      .map(service => `# worker of ${service}\nMESH_SERVICE_KEYS=${value(serviceKey(rootKey, service))}\n`)
      .join('');
  return `# 1. Everywhere: accept the new key. Then restart workers and gateways.
# gateways
MESH_ROOT_KEYS=<the present value>,${root}
${each(key => `<the present value>,${key}`)}
# 2. Everywhere, when 1 is done everywhere: the new key first, since the first one signs. Then restart.
# gateways
MESH_ROOT_KEYS=${root},<the value before 1>
${each(key => `${key},<the value before 1>`)}
# 3. A week later, when the last session by the old key has ended: the new key alone.
# gateways
MESH_ROOT_KEYS=${root}
${each(key => key)}`;
}

function newIdentityKeys(): IdentityKeys {
  const { d, x } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  return { privateKey: String(d), publicKey: String(x) };
}

function serviceKey(rootKey: Buffer, service: string): string {
  return deriveServiceKey(rootKey, service).toString('base64url');
}

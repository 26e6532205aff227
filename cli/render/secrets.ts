import { randomBytes, randomUUID } from 'node:crypto';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parsePrivateKey, publicKeyOf } from '../../mesh/identity.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { createSecretFiles } from '../atomic-file.ts';
import { IMAGE_USER, type Workload } from './workload.ts';

/** A variable of the registry that nobody has set: somebody has to write its file. */
interface MissingSecret {
  file: string;
  variable: string;
}

interface Written {
  made: string[];
  missing: MissingSecret[];
}

const KEY_BYTES = 32;
const PASSWORD_BYTES = 24;

/**
 * Makes the secrets of a deployment, a folder for each container and a file for each value; what is there stays, so
 * that a service which is added gets its key of the root key that all have.
 * @throws Error naming the file that cannot be written, or that holds no key
 */
export function writeSecrets(
  dir: string,
  workloads: readonly Workload[],
  env: Readonly<Record<string, string | undefined>>,
): Written {
  const made: string[] = [];
  const missing: MissingSecret[] = [];
  const keep = (name: string, text: () => string): string => {
    const path = join(dir, name);
    if (!existsSync(path)) {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      createSecretFiles(new Map([[path, text()]]));
      giveToImages(path);
      made.push(path);
    }
    return readFileSync(path, 'utf8').trim();
  };
  const random = () => randomBytes(KEY_BYTES).toString('base64url');
  const password = () => randomBytes(PASSWORD_BYTES).toString('base64url');

  const privateKey = keep('gateway/identity-private-key', random);
  const [rootKey = ''] = keep('gateway/root-keys', random).split(',');
  const redisUrl = `redis://:${keep('redis/password', password)}@redis:6379`;
  keep('gateway/redis-url', () => redisUrl);
  keep('grafana/password', password);
  for (const whose of ['consul', 'gateway', 'prometheus']) keep(`${whose}/consul-token`, randomUUID);
  for (const { service, label, secrets } of workloads) {
    const folder = `worker-${label}`;
    keep(`${folder}/identity-public-keys`, () => publicKeyOf(parsePrivateKey(privateKey)));
    const key = deriveServiceKey(Buffer.from(rootKey, 'base64url'), service).toString('base64url');
    keep(`${folder}/service-keys`, () => key);
    keep(`${folder}/redis-url`, () => redisUrl);
    keep(`${folder}/consul-token`, randomUUID);
    for (const variable of secrets) {
      const value = env[variable];
      const file = join(dir, folder, variable);
      if (value) keep(`${folder}/${variable}`, () => value);
      else if (!existsSync(file)) missing.push({ file, variable });
    }
  }
  return { made, missing };
}

/** Compose mounts files as they are: made by root, nobody in a container could read them. */
function giveToImages(path: string): void {
  if (process.getuid?.() !== 0) return;
  for (const each of [dirname(path), path]) chownSync(each, IMAGE_USER, IMAGE_USER);
  chmodSync(path, 0o400);
}

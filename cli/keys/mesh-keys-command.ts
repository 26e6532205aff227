import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { loadRegistry } from '../../mesh/registry.ts';
import { registryEnvironment, startSettings } from '../../mesh/settings.ts';
import { createSecretFiles } from '../atomic-file.ts';
import { EXIT } from '../command.ts';
import type { InitOptions, KeysOptions } from '../keys.ts';
import { answer, tell } from '../output.ts';
import { identityRotation, newMeshKeys, rootRotation } from './mesh-keys.ts';

/** `mesh keys init` */
export function initKeys({ dir, registry, json }: InitOptions): number {
  const files = newMeshKeys(serviceNames(registry));
  if (dir === undefined) {
    const sections = [...files].map(([name, text]) => `# ${name}\n${text}`);
    answer(json, { files: Object.fromEntries(files) }, sections.join('\n'));
    tell('whoever reads these can be the gateway: keep them secret; --dir writes them to files instead');
    return EXIT.ok;
  }
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const placed = new Map([...files].map(([name, text]) => [join(dir, name), text]));
  createSecretFiles(placed);
  const written = [...placed.keys()];
  answer(json, { written }, written.map(path => `${path}\n`).join(''));
  tell('give each file to its own program only, and keep the folder out of version control');
  return EXIT.ok;
}

/** `mesh keys rotate identity|root` */
export function rotateMeshKey(which: 'identity' | 'root', { registry, json }: KeysOptions): number {
  const steps = which === 'identity' ? identityRotation() : rootRotation(serviceNames(registry));
  answer(json, { steps }, steps);
  return EXIT.ok;
}

function serviceNames(path = startSettings().registryPath): string[] {
  // Only names are asked for: no service has this one, so that no secret of any has to be set.
  const { services } = loadRegistry(path, { env: registryEnvironment(), only: '' });
  return services.map(service => service.name);
}

import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { registryEnvironment, startSettings } from '../../mesh/settings.ts';
import { EXIT, UsageError } from '../command.ts';
import { answer, tell } from '../output.ts';
import { renderCompose } from './compose.ts';
import { renderConsul } from './consul.ts';
import { renderKubernetes } from './k8s.ts';
import { RENDER_KINDS, type RenderOptions } from './kinds.ts';
import { renderNomad } from './nomad.ts';
import { type Files, readWorkloads, type Workload } from './workload.ts';

const RENDERERS: Readonly<Record<string, (workloads: readonly Workload[]) => Files>> = {
  compose: renderCompose,
  nomad: renderNomad,
  k8s: renderKubernetes,
  consul: renderConsul,
};

/** The files of a kind, for a registry file. @throws RegistryError */
export function renderFiles(kind: string, registryPath: string): Files {
  return RENDERERS[kind]?.(readWorkloads(registryPath)) ?? new Map();
}

/** @throws UsageError on an unknown kind; RegistryError; Error when a file cannot be written */
export async function render(kind: string, { registry, dir, json }: RenderOptions): Promise<number> {
  if (!(RENDER_KINDS as readonly string[]).includes(kind))
    throw new UsageError(`"${kind}" is none of ${RENDER_KINDS.join(', ')}`);
  const path = registry ?? startSettings().registryPath;
  if (kind === 'secrets') return makeSecrets(path, dir, json);
  const files = renderFiles(kind, path);
  if (dir === undefined) {
    answer(json, { files: Object.fromEntries(files) }, onOnePage(files, kind));
    return EXIT.ok;
  }
  for (const [name, text] of files) {
    const target = join(dir, name);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, text);
  }
  const written = [...files.keys()].map(name => join(dir, name));
  answer(json, { written }, written.map(name => `${name}\n`).join(''));
  return EXIT.ok;
}

async function makeSecrets(
  path: string,
  dir: string | undefined,
  json: boolean | undefined,
): Promise<number> {
  if (dir === undefined) throw new UsageError('secrets are written to files only: --dir <folder> is missing');
  const { writeSecrets } = await import('./secrets.ts');
  const { made, missing } = writeSecrets(dir, readWorkloads(path), registryEnvironment());
  answer(json, { made, missing }, made.map(name => `${name}\n`).join(''));
  for (const { file, variable } of missing)
    tell(`${file} is to be written by you: it holds ${variable} of the registry, which is not set here`);
  tell('whoever reads these can be the gateway: keep the folder out of version control');
  return missing.length === 0 ? EXIT.ok : EXIT.failed;
}

/** All on stdout: one stream of documents for Kubernetes, else each under its name where there are several. */
function onOnePage(files: Files, kind: string): string {
  if (kind === 'k8s' || files.size === 1) return [...files.values()].join('');
  return [...files].map(([name, text]) => `# ${name}\n${text}`).join('\n');
}

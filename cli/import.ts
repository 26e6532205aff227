import { existsSync, readFileSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import { startSettings } from '../mesh/settings.ts';
import { createFile, createSecretFiles, editFile } from './atomic-file.ts';
import type { ClientFormat } from './clients/client-format.ts';
import { clientOption, detectFormat } from './clients/formats.ts';
import { parseClientFile } from './clients/json-file.ts';
import { type CommonOptions, EXIT, type MeshCommand, UsageError } from './command.ts';
import { formatEnvFile } from './import/env-file.ts';
import { type Change, mergeRegistry } from './import/merge-registry.ts';
import { type ImportPlan, planImport } from './import/plan.ts';
import type { PlannedService } from './import/planned-service.ts';
import { printPlan } from './import/print-plan.ts';
import { readRegistryFile } from './import/registry-file.ts';
import { answer, tell } from './output.ts';
import { plain } from './table.ts';

const ABOUT = `Makes services of the MCP servers in a client's configuration file. Shows what it would do and what it did not understand; writes only with --write. The client's file stays as it is.`;
const NOTE = `Names: a valid one stays; others are made valid, and numbered when they are taken. http_fetch is mcp-http-fetch in Consul; of http_fetch and http-fetch the first has that name, the other is mcp-http-fetch-2 there.

Secrets become references such as \${GITHUB_TOKEN}; their values go into the file that --secrets-file names, and nowhere else. A service that the registry has and that differs stays, unless --replace says otherwise: then command, args, env and cwd are the client's, all else stays.

Exit codes: 0 done, or nothing to do; 1 the file or the registry cannot be used, or a server in it has a fault: then nothing is written; 2 wrong usage.`;

interface Options extends CommonOptions {
  client?: ClientFormat;
  registry?: string;
  write?: boolean;
  replace?: boolean;
  secretsFile?: string;
}

/** `mesh import <file> [server…]` */
export function importCommand(command: MeshCommand): void {
  command
    .description(ABOUT)
    .argument('<file>', "the client's configuration, such as .mcp.json")
    .argument('[server...]', 'only these, by their names in that file')
    .addOption(clientOption('whose file it is (default: by its name and form)'))
    .registryOption('the registry to add to; made if there is none')
    .option('--write', 'write the registry')
    .option('--replace', 'let what the file says take the place of what the registry says')
    // Not --env-file: node takes that for its own, wherever it stands.
    .option(
      '--secrets-file <path>',
      'with --write: make this file with the values of the secrets, for its owner only',
    )
    .note(NOTE)
    .run(importServers);
}

function importServers(path: string, only: string[], options: Options): number {
  const { client, write = false, replace = false, secretsFile, json } = options;
  if (secretsFile !== undefined && !write) throw new UsageError('--secrets-file writes a file: add --write');
  const file = parseClientFile(readClientFile(path), path);
  const detected = detectFormat(file);
  const format = client ?? detected.format;
  const registry = readRegistryFile(options.registry ?? startSettings().registryPath);
  const { plan, secrets } = planImport({ format, file, registry, only, replace });
  const changes = plan.services.flatMap(service => toChange(service, path, format));
  const merged = mergeRegistry(registry.text, changes, registry.path);
  const isWritten = write && plan.faults.length === 0 && changes.length > 0;
  if (isWritten) writeAll(plan, { merged, before: registry.text, secretsFile, secrets });
  answer(json, { ...plan, written: isWritten }, printPlan(plan, format.title));
  if (client === undefined && !detected.sure)
    tell(`taken for a file of ${format.title}; --client says whose it is`);
  for (const line of plan.faults) tell(plain(line));
  tell(outcome(plan, changes.length, { isWritten, write, secretsFile }));
  return plan.faults.length > 0 ? EXIT.failed : EXIT.ok;
}

function readClientFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new Error(`${path}: cannot be read (${code}); name the client's configuration file`, { cause });
  }
}

function toChange(
  { action, entry, unknown }: PlannedService,
  path: string,
  { title }: ClientFormat,
): Change[] {
  if ((action !== 'add' && action !== 'replace') || !entry) return [];
  const keys = unknown.map(({ key }) => key).join(', ');
  const comment = keys === '' ? undefined : `From ${basename(path)} (${title}), not carried over: ${keys}`;
  return [{ kind: action, entry, comment: action === 'add' ? comment : undefined }];
}

interface Writing {
  merged: string;
  /** The registry's text that the plan was made for. */
  before: string | undefined;
  secretsFile: string | undefined;
  secrets: ReadonlyMap<string, string>;
}

/** The file of secrets first: a registry that refers to variables whose values are nowhere would be worse. */
function writeAll(
  { registry, variables }: ImportPlan,
  { merged, before, secretsFile, secrets }: Writing,
): void {
  if (secretsFile !== undefined) {
    const wanted = new Set(variables.map(({ name }) => name));
    const values = new Map([...secrets].filter(([name]) => wanted.has(name)));
    createSecretFiles(new Map([[secretsFile, formatEnvFile(values)]]));
  }
  try {
    if (before === undefined) createFile(registry, merged);
    else editFile(registry, text => unchanged(text, before, registry) && merged, 'mesh import');
  } catch (error) {
    if (secretsFile !== undefined && existsSync(secretsFile)) rmSync(secretsFile);
    throw error;
  }
}

function unchanged(text: string, before: string, path: string): true {
  if (text === before) return true;
  throw new Error(`${path} has been changed in the meantime; run it again`);
}

function outcome(
  plan: ImportPlan,
  changes: number,
  { isWritten, write, secretsFile }: { isWritten: boolean; write: boolean; secretsFile: string | undefined },
): string {
  if (plan.faults.length > 0)
    return `nothing ${write ? 'has been' : 'can be'} written: mend this, or name the servers to take`;
  if (changes === 0) return 'there is nothing to write';
  if (!isWritten) return 'nothing has been written: --write does';
  const secrets = secretsFile === undefined ? '' : `; ${secretsFile} has the secrets, for its owner only`;
  return `${plan.registry} is written${secrets}`;
}

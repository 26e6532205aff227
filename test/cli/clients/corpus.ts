import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { detectFormat } from '../../../cli/clients/formats.ts';
import { parseClientFile } from '../../../cli/clients/json-file.ts';
import { type ImportPlan, planImport } from '../../../cli/import/plan.ts';
import { parseRegistryFile, type RegistryFile } from '../../../cli/import/registry-file.ts';

export const CORPUS = join(import.meta.dirname, '../../fixtures/client-configs');

/** A configuration as a client has it, and what is expected of its import. */
export interface Case {
  name: string;
  folder: string;
  /** The client's file. */
  path: string;
  expected: Expected;
}

interface Expected {
  /** The file cannot be used, and this is why. */
  error?: string;
  client?: string;
  sure?: boolean;
  services?: Record<string, unknown>[];
  variables?: Record<string, string>;
  secrets?: Record<string, string>;
  faults?: string[];
  notes?: string[];
}

export function corpus(): Case[] {
  const folders = readdirSync(CORPUS, { withFileTypes: true }).filter(entry => entry.isDirectory());
  return folders.map(({ name }) => {
    const folder = join(CORPUS, name);
    const files = readdirSync(folder, { recursive: true, withFileTypes: true });
    const own = files.filter(file => file.isFile() && /\.(?:json|toml)$/.test(file.name));
    if (own.length !== 1 || !own[0])
      throw new Error(`${folder}: ${own.length} client files; there must be one`);
    const text = readFileSync(join(folder, 'expected.yaml'), 'utf8').replaceAll('<dir>', folder);
    return { name, folder, path: join(own[0].parentPath, own[0].name), expected: parse(text) as Expected };
  });
}

export function planOf(path: string, { registry = '', replace = false } = {}) {
  const file = parseClientFile(readFileSync(path, 'utf8'), path);
  const { format, sure } = detectFormat(file);
  const known: RegistryFile =
    registry === ''
      ? { path: 'r.yaml', text: undefined, services: [] }
      : parseRegistryFile(registry, 'r.yaml');
  return { format, sure, ...planImport({ format, file, registry: known, only: [], replace }) };
}

/** What the plan says, in the form of `expected.yaml`. */
export function summaryOf(plan: ImportPlan) {
  const some = <T>(key: string, list: T[]) => (list.length > 0 ? { [key]: list } : {});
  return {
    services: plan.services.map(({ from, project, place, action, reason, consul, entry, ...rest }) => ({
      from,
      ...(project === undefined ? {} : { project }),
      place: place.slice(plan.file.length + 1),
      action,
      ...(reason === undefined ? {} : { reason }),
      ...(consul === undefined ? {} : { consul }),
      ...(entry === undefined ? {} : { entry }),
      ...some('changes', rest.changes),
      ...some('warnings', rest.warnings),
      ...(rest.unknown.length > 0
        ? { unknown: Object.fromEntries(rest.unknown.map(({ key, why }) => [key, why])) }
        : {}),
    })),
    ...(plan.variables.length > 0 ? { variables: variablesOf(plan) } : {}),
    ...some('faults', plan.faults),
    ...some('notes', plan.notes),
  };
}

function variablesOf({ variables }: ImportPlan): Record<string, string> {
  return Object.fromEntries(
    variables.map(({ name, kind, optional, services }) => [
      name,
      `${kind}${optional ? ', optional' : ''}: ${services.join(', ')}`,
    ]),
  );
}

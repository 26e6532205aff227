import { homedir } from 'node:os';
import { MCP_PATH } from '../../mesh/names.ts';
import { suggestion } from '../../mesh/yaml-faults.ts';
import type {
  ClientFormat,
  ClientServer,
  ClientServers,
  RemoteSetup,
  StdioSetup,
} from '../clients/client-format.ts';
import type { JsonFile } from '../clients/json-file.ts';
import { UsageError } from '../command.ts';
import { baseFolder } from './adapt.ts';
import { type Draft, draftService, referVariables } from './draft.ts';
import { liftKnownSecrets, liftSecrets } from './lift.ts';
import { nameServices } from './names.ts';
import { type PlannedService, planHosted, planRemote, skipped } from './planned-service.ts';
import { type KnownService, type RegistryFile, variablesOf } from './registry-file.ts';
import { type PlannedVariable, VariableTable } from './variable-table.ts';

/** What an import would do; no secret is in it. */
export interface ImportPlan {
  client: string;
  file: string;
  registry: string;
  services: PlannedService[];
  variables: PlannedVariable[];
  /** What stands in the file beside the servers. */
  notes: string[];
  /** Servers that cannot be understood: `file:line:column: what, and what would be right`. */
  faults: string[];
}

interface PlanInput {
  format: ClientFormat;
  file: JsonFile;
  registry: RegistryFile;
  /** Names in the client's file; empty: all. */
  only: readonly string[];
  replace: boolean;
}

/** What is to be done with one server, before anything is named. */
interface Sorted {
  server: ClientServer;
  /** Why nothing is done with it. */
  skip?: string;
}

/** @throws UsageError when one of `only` is not in the file */
export function planImport(input: PlanInput): { plan: ImportPlan; secrets: ReadonlyMap<string, string> } {
  const { format, file, registry } = input;
  const read = format.read(file);
  const sorted = sortServers(select(read, input.only));
  const hosted = sorted.filter(({ server, skip }) => skip === undefined && server.setup.kind === 'stdio');
  const known = new Map(registry.services.map(service => [service.name, service]));
  const names = nameServices(
    hosted.map(({ server }) => server.name),
    new Map([...known].map(([name, { consul }]) => [name, consul])),
  );
  const drafts = new Map<ClientServer, Draft>();
  hosted.forEach(({ server }, i) => {
    const own = names[i];
    if (!own) return;
    const base = baseFolder(format.id, file.path, server, homedir());
    drafts.set(server, draftService(server, server.setup as StdioSetup, own, { format, base }));
  });
  const table = liftAll([...drafts.values()], known);
  const services = sorted.map(({ server, skip }) => {
    const draft = drafts.get(server);
    if (draft) return planHosted(draft, known.get(draft.names.name), input);
    if (skip !== undefined) return skipped(server, skip);
    return planRemote(server, server.setup as RemoteSetup, input, known);
  });
  const faults = sorted.flatMap(({ server }) => server.faults);
  const used = services
    .filter(({ action }) => ['add', 'replace', 'same'].includes(action))
    .map(({ name }) => name);
  const variables = table.variables.filter(variable => variable.services.some(name => used.includes(name)));
  const plan = {
    client: format.id,
    file: file.path,
    registry: registry.path,
    services,
    variables,
    notes: read.notes,
    faults,
  };
  return { plan, secrets: table.values };
}

function select({ servers }: ClientServers, only: readonly string[]): ClientServer[] {
  const names = servers.map(server => server.name);
  for (const name of only) {
    if (names.includes(name)) continue;
    throw new UsageError(
      `there is no server "${name}"${suggestion(name, names)}; there are: ${names.join(', ') || 'none'}`,
    );
  }
  return only.length === 0 ? servers : servers.filter(server => only.includes(server.name));
}

function sortServers(servers: readonly ClientServer[]): Sorted[] {
  return servers.map((server, i) => {
    if (server.faults.length > 0) return { server, skip: 'it has faults' };
    const mesh = meshService(server);
    if (mesh !== undefined) return { server, skip: `it leads to the mesh already (${mesh})` };
    const setup = describe(server);
    const twin = servers.slice(0, i).find(other => other.name === server.name && describe(other) === setup);
    return twin ? { server, skip: `the same as at ${twin.place}` } : { server };
  });
}

/** All that makes two entries the same server. */
function describe({ setup, disabled }: ClientServer): string {
  const plain = Object.entries(setup).map(([key, value]) => [key, value instanceof Map ? [...value] : value]);
  return JSON.stringify([plain, disabled]);
}

/** The service of the mesh that an entry leads to, as `mesh export` writes them. */
function meshService({ setup }: ClientServer): string | undefined {
  if (setup.kind === 'remote') return new RegExp(`${MCP_PATH}/([^/?#]+)`).exec(setup.url)?.[1];
  const words = [setup.command, ...setup.args];
  const connect = words.findIndex(
    (word, i) => word === 'connect' && /(?:^|[\\/])mesh(?:\.ts)?$/.test(words[i - 1] ?? ''),
  );
  return connect < 0 ? undefined : words[connect + 1];
}

/** Names what the file refers to first: a lifted secret must not get a name that means something else. */
function liftAll(drafts: readonly Draft[], known: ReadonlyMap<string, KnownService>): VariableTable {
  const imported = new Set(drafts.map(({ names }) => names.name));
  const used = [...known.values()].map(service => ({ name: service.name, variables: variablesOf(service) }));
  const table = new VariableTable((variable, service) => {
    const own = used.find(({ name }) => name === service);
    if (own?.variables.has(variable)) return false;
    return used.some(({ name, variables }) => !imported.has(name) && variables.has(variable));
  });
  for (const draft of drafts) referVariables(draft, table);
  for (const draft of drafts) liftSecrets(draft, table);
  for (const draft of drafts) liftKnownSecrets(draft, table);
  return table;
}

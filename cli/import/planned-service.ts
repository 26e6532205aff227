import type { JsonObject } from '../../mesh/jsonrpc.ts';
import { consulName } from '../../mesh/names.ts';
import type { ClientFormat, ClientServer, RemoteSetup, UnknownKey } from '../clients/client-format.ts';
import type { Draft } from './draft.ts';
import type { KnownService } from './registry-file.ts';
import { parseSegments, toRegistryText } from './segments.ts';

/**
 * `add`: a service is added; `replace`: what the client says takes the place of what the registry says; `keep`: the
 * registry says something else, and that stays; `same`: it says the same; `skip`: nothing can be made of it.
 */
export type Action = 'add' | 'replace' | 'keep' | 'same' | 'skip';

export interface PlannedService {
  /** Its name in the client's file, and where that stands. */
  from: string;
  place: string;
  /** Folder of the project that it belongs to. */
  project?: string | undefined;
  action: Action;
  /** Why it is kept or skipped. */
  reason?: string;
  /** Name in the route. */
  name?: string;
  consul?: string;
  /** Fields for the registry. */
  entry?: JsonObject;
  changes: string[];
  warnings: string[];
  /** Keys that are not carried over. */
  unknown: UnknownKey[];
}

interface PlanOptions {
  format: ClientFormat;
  /** What the client says takes the place of what the registry says. */
  replace: boolean;
}

/** What becomes of a server that a worker can start. */
export function planHosted(
  draft: Draft,
  known: KnownService | undefined,
  { replace }: PlanOptions,
): PlannedService {
  const { server, names, changes, warnings } = draft;
  const entry = entryOf(draft);
  const common = { ...origin(server), name: names.name, consul: names.consul, entry, changes, warnings };
  if (!known) return { ...common, action: 'add' };
  const differing = ['command', 'args', 'env', 'cwd'].filter(
    field => !sameField(entry[field], known.fields[field]),
  );
  if (differing.length === 0) return { ...common, action: 'same' };
  if (replace) return { ...common, action: 'replace', reason: `other ${differing.join(', ')}` };
  const reason = `the registry has another ${differing.join(', ')} for it; --replace takes this one`;
  return { ...common, action: 'keep', reason };
}

function entryOf({ server, names, command, args, env, cwd }: Draft): JsonObject {
  return {
    name: names.name,
    ...(names.consul === consulName(names.name) ? {} : { service_name: names.consul }),
    command: toRegistryText(command),
    ...(args.length === 0 ? {} : { args: args.map(toRegistryText) }),
    ...(env.size === 0
      ? {}
      : { env: Object.fromEntries([...env].map(([name, text]) => [name, toRegistryText(text)])) }),
    ...(cwd === undefined ? {} : { cwd: toRegistryText(cwd) }),
    ...(server.disabled ? { instances: 0 } : {}),
    ...(server.timeoutMs === undefined ? {} : { timeout_ms: server.timeoutMs }),
  };
}

function sameField(wanted: unknown, present: unknown): boolean {
  const empty = (value: unknown) => JSON.stringify(value ?? '').length <= 2;
  if (empty(wanted) && empty(present)) return true;
  const texts = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(String);
    if (typeof value !== 'object' || value === null) return String(value);
    return Object.entries(value)
      .map(([key, text]) => `${key}=${text}`)
      .toSorted();
  };
  return JSON.stringify(texts(wanted)) === JSON.stringify(texts(present));
}

/**
 * A worker starts programs, so a server that is only a URL cannot be hosted. It can be what a service of that name was
 * before: `legacy_url` of one that the registry has.
 */
export function planRemote(
  server: ClientServer,
  { url, transport, headers }: RemoteSetup,
  { format, replace }: PlanOptions,
  known: ReadonlyMap<string, KnownService>,
): PlannedService {
  const service = known.get(server.name);
  const secret = headers.size > 0 || /[?@]|\$\{/.test(url);
  const where = `at ${URL.parse(url)?.origin ?? 'a URL'} (${transport})`;
  const cannot = `it runs ${where}: a worker hosts programs, so clients go on using that URL`;
  const add = 'with a command of its own in the registry, that URL can be its legacy_url';
  if (!service) return skipped(server, `${cannot}; ${add}`);
  if (transport !== 'http' || secret || !URL.canParse(url))
    return skipped(
      server,
      `${cannot}; as legacy_url of "${service.name}" it would have to be plain HTTP without headers or secrets`,
    );
  const legacy = toRegistryText(parseSegments(url, format.variable));
  const entry = { name: service.name, legacy_url: legacy };
  const common = {
    ...origin(server),
    name: service.name,
    consul: service.consul,
    entry,
    changes: [],
    warnings: server.notes,
  };
  if (service.fields.legacy_url === legacy) return { ...common, action: 'same' };
  if (replace) return { ...common, action: 'replace', reason: 'its old deployment becomes legacy_url' };
  return { ...common, action: 'keep', reason: `it runs ${where}; --replace makes that URL its legacy_url` };
}

/** Nothing is done with it. */
export function skipped(server: ClientServer, reason: string): PlannedService {
  return { ...origin(server), action: 'skip', reason, changes: [], warnings: server.notes };
}

function origin({ name, place, project, unknown }: ClientServer) {
  return { from: name, place, ...(project === undefined ? {} : { project }), unknown };
}

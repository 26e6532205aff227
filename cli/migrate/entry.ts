import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { suggestion } from '../../mesh/suggestion.ts';
import type { ClientFormat, ClientServer } from '../clients/client-format.ts';
import { detectFormat } from '../clients/formats.ts';
import { parseClientFile } from '../clients/json-file.ts';
import { UsageError } from '../command.ts';
import { baseFolder } from '../import/adapt.ts';
import { draftService } from '../import/draft.ts';
import { nameServices } from '../import/names.ts';
import { parseSegments, type Segment } from '../import/segments.ts';

/** A server's entry in a client's configuration file, as it stands there now. */
export interface Entry {
  /** Absolute. */
  path: string;
  /** The whole file's. */
  text: string;
  format: ClientFormat;
  server: ClientServer;
}

/** How the old server is reached, everything filled in. */
export type OldWay =
  | { kind: 'stdio'; command: string; args: string[]; env: Record<string, string>; cwd: string | undefined }
  | { kind: 'http'; url: string; headers: Record<string, string> };

type Environment = Readonly<Record<string, string | undefined>>;

interface ReadOptions {
  /** Default: by the file's name and form. */
  client?: ClientFormat | undefined;
  /** The service that the entry is to be for; counts when `name` is not given. */
  service: string;
  /** The entry's name in the file, or the keys that lead to it: see `fragmentOf`. */
  name?: string | undefined;
}

/** @throws Error naming the file, UsageError when there is no such entry */
export function readEntry(given: string, { client, service, name }: ReadOptions): Entry {
  const path = resolve(given);
  const text = readText(path, given);
  const file = parseClientFile(text, given);
  const format = client ?? detectFormat(file).format;
  const { servers } = format.read(file);
  const server = name === undefined ? findService(servers, service) : findNamed(servers, name);
  if (!server) {
    const wanted = name ?? service;
    const names = servers.map(one => one.name);
    const there = names.length === 0 ? 'it has none' : `there are: ${names.join(', ')}`;
    const cure = name === undefined ? '; --name says which entry is its' : '';
    throw new UsageError(`${given}: no server "${wanted}"${suggestion(wanted, names)}; ${there}${cure}`);
  }
  if (server.faults.length > 0) throw new Error(server.faults.join('\n'));
  return { path, text, format, server };
}

/** Names an entry in one word, as `#…` of `--legacy`: the keys that lead to it, then its name. */
export function fragmentOf({ name, within = [] }: ClientServer): string {
  return [...within, name].map(encodeURIComponent).join('/');
}

/** @throws Error naming a variable that is not set, or what a client can use and this cannot */
export function oldWayOf({ path, format, server }: Entry, env: Environment): OldWay {
  const { setup } = server;
  const base = baseFolder(format.id, path, server, homedir());
  const folders = base === undefined ? {} : { WORKSPACE_FOLDER: base, CLAUDE_PROJECT_DIR: base };
  const fill = (segments: readonly Segment[]) => fillIn(segments, { ...folders, ...env }, server);
  if (setup.kind === 'remote') {
    if (setup.transport !== 'http')
      throw new Error(
        `${server.place}: ${setup.transport} is not spoken here; Streamable HTTP and stdio are`,
      );
    const parse = (text: string) => fill(parseSegments(text, format.variable));
    const headers = [...setup.headers].map(([name, value]) => [name.toLowerCase(), parse(value)]);
    return { kind: 'http', url: parse(setup.url), headers: Object.fromEntries(headers) };
  }
  const names = { name: server.name, consul: '', changes: [] };
  const draft = draftService(server, setup, names, { format, base });
  const own = [...draft.env].map(([name, segments]) => [name, fill(segments)]);
  return {
    kind: 'stdio',
    command: fill(draft.command),
    args: draft.args.map(fill),
    env: { ...Object.fromEntries(draft.fromFile), ...Object.fromEntries(own) },
    cwd: draft.cwd === undefined ? base : fill(draft.cwd),
  };
}

function readText(path: string, given: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new Error(`${given}: cannot be read (${code}); name the client's configuration file`, { cause });
  }
  const text = bytes.toString('utf8');
  if (Buffer.from(text).equals(bytes)) return text;
  throw new Error(`${given}: is not UTF-8, and would not come back byte for byte; convert it first`);
}

/** The entry of that name, else the one that `mesh import` makes that service of. */
function findService(servers: readonly ClientServer[], service: string): ClientServer | undefined {
  const named = servers.find(({ name }) => name === service);
  if (named) return named;
  const names = nameServices(
    servers.map(({ name }) => name),
    new Map(),
  );
  return servers[names.findIndex(({ name }) => name === service)];
}

function findNamed(servers: readonly ClientServer[], fragment: string): ClientServer | undefined {
  const plain = servers.find(({ name }) => name === fragment);
  return plain ?? servers.find(server => fragmentOf(server) === fragment);
}

function fillIn(segments: readonly Segment[], env: Environment, { name, place }: ClientServer): string {
  return segments
    .map(segment => {
      if (segment.kind === 'text') return segment.text;
      const value = env[segment.name] || segment.fallback;
      if (value !== undefined) return value;
      throw new Error(
        `${place}: ${name}: the variable ${segment.name} is not set; set it, as the client does`,
      );
    })
    .join('');
}

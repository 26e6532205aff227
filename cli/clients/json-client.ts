import { basename } from 'node:path';
import type { JsonObject } from '../../mesh/jsonrpc.ts';
import { suggestion } from '../../mesh/yaml-faults.ts';
import {
  type Bridge,
  type ClientFormat,
  type ClientServer,
  type ClientServers,
  KEY_VARIABLE,
  type ServerPlace,
  type Variable,
} from './client-format.ts';
import { removeMember, setMember } from './json-edit.ts';
import { ClientFileError, type JsonFile, kindOf, memberOf, membersOf } from './json-file.ts';
import { type EntryRules, readServer } from './read-server.ts';

interface JsonClientOptions extends Pick<ClientFormat, 'id' | 'title' | 'where' | 'variable' | 'meshEntry'> {
  /** The member that holds the servers. */
  key: 'mcpServers' | 'servers';
  rules: EntryRules;
  speaksHttp?: boolean;
  detect(file: JsonFile): boolean;
  /** Members of the file beside the servers that are known. */
  beside?: readonly string[];
  /** Notes on what stands beside the servers. */
  notes?: (file: JsonFile) => string[];
  /** Whether the file is mostly about other things, so that what stands beside the servers is none of ours. */
  foreign?: (file: JsonFile) => boolean;
  /** Other places of servers in the file. */
  more?: (file: JsonFile, read: ReadServers) => ClientServer[];
  /** What a printed configuration has beside the servers. */
  printBeside?: (key: boolean) => JsonObject;
}

/** Reads the object of servers that is a member of `holder`. */
export type ReadServers = (holder: ReturnType<typeof memberOf>, within?: readonly string[]) => ClientServer[];

const COMMON = ['$schema', 'mcpServers', 'servers', 'inputs'];

/** A client whose configuration is JSON with an object of servers by name. */
export function createJsonClient(options: JsonClientOptions): ClientFormat {
  const { id, title, where, key, rules, detect, variable, meshEntry, speaksHttp = true } = options;
  const pathOf = ({ name, within = [] }: ServerPlace) => [...within, key, name];
  return {
    id,
    title,
    where,
    speaksHttp,
    detect,
    variable,
    meshEntry,
    read(file) {
      const read: ReadServers = (holder, within) => readAll(file, holder, within, rules);
      return readFile(file, options, read);
    },
    pathOf,
    setServer: (text, at, entry) => setMember(text, pathOf(at), entry),
    removeServer: (text, at) => removeMember(text, pathOf(at)),
    print(entries, withKey) {
      const beside = options.printBeside?.(withKey) ?? {};
      return `${JSON.stringify({ ...beside, [key]: Object.fromEntries(entries) }, null, 2)}\n`;
    },
  };
}

/** Whether the file's name and the folder's are these; either may be undefined: any. */
export function isAt(file: JsonFile, name: RegExp, folder?: RegExp): boolean {
  const path = file.path.replaceAll('\\', '/');
  return name.test(basename(path)) && (folder === undefined || folder.test(path));
}

/** `headers` that carry the API key by a reference of the client's own syntax. */
export function keyHeader(key: boolean, reference: string): JsonObject {
  return key ? { headers: { Authorization: `Bearer ${reference}` } } : {};
}

/** A stdio entry; its key comes by `reference`, in the client's syntax, or from a file. */
export function bridgeEntry({ command, args, keyFile }: Bridge, reference?: string): JsonObject {
  const key = reference === undefined ? {} : { [KEY_VARIABLE]: reference };
  const env = keyFile === undefined ? key : { [`${KEY_VARIABLE}_FILE`]: keyFile };
  return { command, args, ...(Object.keys(env).length > 0 ? { env } : {}) };
}

/** Variables of the editors: `${env:NAME}`, folders and separators. */
export function editorVariable(body: string): Variable | undefined {
  const [, env] = /^env:([A-Za-z_]\w*)$/.exec(body) ?? [];
  if (env !== undefined) return { kind: 'env', name: env };
  if (body === 'userHome') return { kind: 'env', name: 'HOME', note: "the worker's home folder, not yours" };
  if (body === 'pathSeparator' || body === '/') return { kind: 'text', text: '/' };
  const [, folder, of] = /^(workspaceFolder|workspaceFolderBasename)(?::(.+))?$/.exec(body) ?? [];
  if (folder === undefined) return undefined;
  const name = folder === 'workspaceFolder' ? 'WORKSPACE_FOLDER' : 'WORKSPACE_FOLDER_BASENAME';
  const note = 'a folder that only the editor knows: set it to one on the host of the workers';
  return { kind: 'env', name: of === undefined ? name : toVariableName(`${name}_${of}`), note };
}

/** A name that an environment variable may have (POSIX: letters, digits and "_", in capitals by custom). */
export function toVariableName(text: string): string {
  const name = text
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/[^A-Za-z0-9]+/g, '_')
    .replace(/^_+|_+$/g, '')
    .toUpperCase();
  return /^\d/.test(name) ? `_${name}` : name || 'VALUE';
}

function readFile(file: JsonFile, options: JsonClientOptions, read: ReadServers): ClientServers {
  const { key, beside = [], foreign } = options;
  if (!file.root) return { servers: [], notes: ['the file is empty'] };
  if (file.root.type !== 'object') {
    const message = `the file is ${kindOf(file.root)}; it must be an object: { "${key}": { … } }`;
    throw new ClientFileError(`${file.place(file.root.offset)}: ${message}`);
  }
  const members = membersOf(file.root);
  const own = memberOf(file.root, key);
  const servers = [...read(own), ...(options.more?.(file, read) ?? [])];
  const known = [...COMMON, key, ...beside];
  const notes = [...(options.notes?.(file) ?? [])];
  if (foreign?.(file)) return { servers, notes };
  if (!own && servers.length === 0) throw new ClientFileError(missingServers(file, key));
  for (const member of members) {
    if (known.includes(member.key)) continue;
    notes.push(`${file.place(member.offset)}: "${member.key}" is not known${suggestion(member.key, known)}`);
  }
  return { servers, notes };
}

/** Says where the servers may be instead. */
function missingServers(file: JsonFile, key: string): string {
  const members = membersOf(file.root);
  const other = members.find(member => member.key === (key === 'servers' ? 'mcpServers' : 'servers'));
  const client = key === 'servers' ? 'claude-code' : 'vscode';
  if (other)
    return `${file.place(other.offset)}: there is no "${key}" but "${other.key}": try --client ${client}`;
  const near = members.find(member => suggestion(member.key, [key]) !== '');
  const hint = near ? suggestion(near.key, [key]) : '; servers by their names belong there';
  return `${file.place(near?.offset ?? 0)}: there is no "${key}"${hint}`;
}

function readAll(
  file: JsonFile,
  holder: ReturnType<typeof memberOf>,
  within: readonly string[] | undefined,
  rules: EntryRules,
): ClientServer[] {
  if (!holder || holder.value.type === 'null') return [];
  if (holder.value.type !== 'object') {
    const what = `"${holder.key}" is ${kindOf(holder.value)}; it must be an object of servers by name`;
    throw new ClientFileError(`${file.place(holder.value.offset)}: ${what}`);
  }
  const members = membersOf(holder.value);
  return members.flatMap((member, i) => {
    const later = members.slice(i + 1).find(other => other.key === member.key);
    if (later) return [];
    const { key: name, offset, value } = member;
    const server = readServer(file, { name, within, offset }, value, rules);
    const earlier = members.slice(0, i).filter(other => other.key === name);
    for (const { offset: at } of earlier)
      server.notes.push(
        `${file.place(at)}: "${name}" stands here, too; clients take the last one, and so does this`,
      );
    return [server];
  });
}

import type { JsonObject } from '../../mesh/jsonrpc.ts';
import type { TextEdit } from './json-edit.ts';
import type { JsonFile } from './json-file.ts';

export const CLIENT_IDS = [
  'claude',
  'claude-code',
  'cursor',
  'vscode',
  'codex',
  'windsurf',
  'cline',
] as const;
export type ClientId = (typeof CLIENT_IDS)[number];

/** What a client and its configuration file are like. */
export interface ClientFormat {
  id: ClientId;
  /** Its name for people. */
  title: string;
  /** Where it looks for its configuration, for people. */
  where: string;
  /** Whether its file can name URLs; else a service is reached by a program that speaks stdio. */
  speaksHttp: boolean;
  /** Whether this file is surely this client's, by its path or its shape; the shape alone leaves some in doubt. */
  detect(file: JsonFile): boolean;
  /** Every server of the file, the faulty ones with their faults. */
  read(file: JsonFile): ClientServers;
  /** What `${body}` is to this client; undefined: plain text. */
  variable(body: string): Variable | undefined;
  /** Keys that lead from the file's root to a server's entry. */
  pathOf(at: ServerPlace): string[];
  /** Sets a server's entry and leaves every other byte. @throws Error with the place when the file is broken */
  setServer(text: string, at: ServerPlace, entry: JsonObject): TextEdit;
  /** Takes a server's entry out and leaves every other byte. @throws Error with the place when the file is broken */
  removeServer(text: string, at: ServerPlace): TextEdit;
  /** The entry by which this client uses a service of the mesh. */
  meshEntry(target: MeshTarget): JsonObject;
  /** A whole configuration file with these entries; `key`: they send the API key. */
  print(entries: ReadonlyMap<string, JsonObject>, key: boolean): string;
}

/** Where a server's entry stands in its client's file. */
export interface ServerPlace {
  name: string;
  /** Members that lead to the object which holds the client's object of servers; none: it is the file's own. */
  within?: readonly string[] | undefined;
}

/** How a client reaches a service of the mesh. */
export interface MeshTarget {
  service: string;
  /** URL of the service. */
  url: string;
  /** A program that speaks stdio in place of the URL; undefined: the client speaks Streamable HTTP itself. */
  bridge?: Bridge | undefined;
  /** Whether an API key is sent: by reference, never as it is. */
  key: boolean;
}

export interface Bridge {
  command: string;
  args: string[];
  /** File that holds the API key, for clients without variables. */
  keyFile?: string | undefined;
}

export interface ClientServers {
  servers: ClientServer[];
  /** What stands beside the servers and means nothing to the mesh. */
  notes: string[];
}

/** A server as its client's file has it, nothing filled in. */
export interface ClientServer extends ServerPlace {
  /** Folder of the project that it belongs to, in files that hold several projects. */
  project: string | undefined;
  /** `file:line:column` of its name. */
  place: string;
  setup: StdioSetup | RemoteSetup;
  disabled: boolean;
  /** Longest time of a call, in ms, where the client's documentation says so. */
  timeoutMs: number | undefined;
  /** Keys that have no equal in the registry, and why. */
  unknown: UnknownKey[];
  /** What is odd and was understood all the same. */
  notes: string[];
  /** `file:line:column: what, and what would be right`: the entry cannot be used. */
  faults: string[];
}

export interface StdioSetup {
  kind: 'stdio';
  command: string;
  args: string[];
  env: Map<string, string>;
  cwd: string | undefined;
  envFile: string | undefined;
}

export interface RemoteSetup {
  kind: 'remote';
  transport: 'http' | 'sse' | 'ws';
  url: string;
  headers: Map<string, string>;
}

export interface UnknownKey {
  key: string;
  place: string;
  why: string;
}

/** What `${…}` stands for in a client's file. */
export type Variable =
  | { kind: 'env'; name: string; fallback?: string | undefined; note?: string }
  | { kind: 'text'; text: string };

/** Variable of the API key in what is exported. */
export const KEY_VARIABLE = 'MESH_API_KEY';

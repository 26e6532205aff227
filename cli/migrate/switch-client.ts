import { accessSync, chmodSync, constants, existsSync, realpathSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { MCP_PATH } from '../../mesh/names.ts';
import { clientSettings } from '../../mesh/settings.ts';
import { createFile, editFile } from '../atomic-file.ts';
import type { Bridge, ClientFormat } from '../clients/client-format.ts';
import { UsageError } from '../command.ts';
import type { MigrateOptions } from '../migrate.ts';
import { changesBetween } from './differences.ts';
import { type Entry, fragmentOf, readEntry } from './entry.ts';
import { addToJournal, hashOf, type Switch, takeFromJournal } from './journal.ts';
import { writeShare } from './share.ts';
import { findEntry, switchedText } from './switched-text.ts';

export interface Switched {
  file: string;
  entry: string;
  /** The file as it was. */
  backup: string;
}

const PROGRAM = join(import.meta.dirname, '../mesh.ts');

/**
 * Lets a client's entry name the mesh. Backup and journal come first, so that whatever happens can be undone.
 * @throws Error naming the file, and then it is as it was
 */
export function switchClient(
  compared: Entry,
  service: string,
  options: MigrateOptions & { base: string },
): Switched {
  const { path } = compared;
  const entry = readAgain(compared, service);
  const { format, server, text } = entry;
  checkWritable(path);
  const backup = newBackupPath(realpathSync(path));
  const bridge = bridgeTo(service, entry, backup, options);
  const meshEntry = makeEntry(format, service, bridge, options);
  const { name, within = [] } = server;
  if (changesBetween(findEntry(text, format.pathOf(server))?.value, meshEntry).length === 0)
    throw new Error(`${server.place}: ${name} is of the mesh already`);
  const after = switchedText(text, format, server, meshEntry);
  const done: Switch = {
    service,
    client: format.id,
    name,
    within: [...within],
    backup,
    at: new Date().toISOString(),
    before: hashOf(text),
    after: hashOf(after),
    entry: meshEntry,
  };
  createBackup(backup, text, statSync(path).mode);
  try {
    addToJournal(path, done);
    if (options.percent !== undefined) writeShare(backup, options.percent);
    editFile(path, current => same(current, text, path) && after, 'mesh migrate');
  } catch (error) {
    takeFromJournal(path, done);
    rmSync(backup);
    throw error;
  }
  return { file: path, entry: name, backup };
}

/** Clients write their files while they run: what counts is the entry. */
function readAgain({ path, format, server }: Entry, service: string): Entry {
  const now = readEntry(path, { client: format, service, name: fragmentOf(server) });
  if (isDeepStrictEqual(now.server.setup, server.setup)) return now;
  throw new Error(`${server.place}: ${server.name} has been changed during the comparison; run it again`);
}

function checkWritable(path: string): void {
  const target = realpathSync(path);
  const isReadOnly = (statSync(target).mode & 0o222) === 0;
  try {
    if (!isReadOnly) accessSync(target, constants.W_OK);
  } catch {
    throw new Error(`${path} may not be written by you; run this as its owner`);
  }
  if (isReadOnly) throw new Error(`${path} is read-only; \`chmod u+w\` it, if it is to change`);
}

function newBackupPath(target: string): string {
  const stamp = new Date()
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(':', '-');
  for (let n = 1; ; n += 1) {
    const path = `${target}.before-mesh-${stamp}${n === 1 ? '' : `-${n}`}`;
    if (!existsSync(path)) return path;
  }
}

function createBackup(backup: string, text: string, mode: number): void {
  createFile(backup, text, 0o600);
  // What the umask would take away was there before.
  chmodSync(backup, mode & 0o7777);
}

function bridgeTo(
  service: string,
  { format, server }: Entry,
  backup: string,
  { stdio = false, percent, base, keyFile }: MigrateOptions & { base: string },
): Bridge | undefined {
  if (!stdio && format.speaksHttp && percent === undefined) {
    if (keyFile !== undefined)
      throw new UsageError(`--key-file goes with --stdio: ${format.title} is given the URL`);
    return undefined;
  }
  const legacy = ['--legacy', `${backup}#${fragmentOf(server)}`, '--client', format.id];
  const args = [PROGRAM, 'connect', service, '--url', base, ...(percent === undefined ? [] : legacy)];
  const file = keyFile ?? clientSettings().keyFile;
  return { command: process.execPath, args, keyFile: file === undefined ? undefined : resolve(file) };
}

function makeEntry(
  format: ClientFormat,
  service: string,
  bridge: Bridge | undefined,
  { base }: { base: string },
): JsonObject {
  const key = clientSettings().key !== undefined;
  if (key && bridge && bridge.keyFile === undefined && format.id === 'claude')
    throw new UsageError(
      `${format.title} has no variables: --key-file names the file that holds the API key`,
    );
  const entry = format.meshEntry({ service, url: `${base}${MCP_PATH}/${service}`, bridge, key });
  return isObject(entry) ? entry : {};
}

function same(current: string, text: string, path: string): true {
  if (current === text) return true;
  throw new Error(`${path} has been changed in the meantime; run it again`);
}

import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { delimiter, resolve } from 'node:path';
import type { Service } from '../../mesh/registry.ts';
import { inheritedEnvironment } from '../../mesh/settings.ts';
import { broken, ok, type Patient, type Verdict } from './verdict.ts';

/** What execvp(3) searches when there is no PATH. */
const DEFAULT_PATH = '/bin:/usr/bin';
/** Linux looks for an interpreter in this much of a file (BINPRM_BUF_SIZE). */
const HEAD_BYTES = 256;

/** The command is there and can be executed, looked for as execvp(3) does: in the server's own PATH and folder. */
export function checkCommand({ service, folder }: Pick<Patient, 'service' | 'folder'>): Verdict {
  const cwd = resolve(folder, service.cwd ?? '.');
  if (!isFolder(cwd)) return broken(`its folder ${cwd} does not exist`, 'correct cwd in the registry');
  const { candidates, searched } = placesOf(service, cwd);
  const found = candidates.find(isExecutable);
  if (found !== undefined) return checkInterpreter(found);
  const present = candidates.find(isFile);
  if (present !== undefined) return broken(`${present} may not be executed`, `chmod +x ${present}`);
  return broken(
    `${service.command} is not found${searched === undefined ? ` (${candidates[0]})` : `; its PATH is ${searched}`}`,
    searched === undefined
      ? 'correct command, or cwd, in the registry'
      : 'install it, write its whole path as command, or put PATH into env in the registry',
  );
}

/** `searched`: the PATH, for a command that is looked for in one. */
function placesOf({ command, env, env_allow }: Service, cwd: string) {
  if (command.includes('/')) return { candidates: [resolve(cwd, command)], searched: undefined };
  const searched = { ...inheritedEnvironment(env_allow), ...env }.PATH ?? DEFAULT_PATH;
  const candidates = searched.split(delimiter).map(folder => resolve(cwd, folder, command));
  return { candidates, searched };
}

/** A script whose interpreter is missing fails as if the script itself were. */
function checkInterpreter(path: string): Verdict {
  const [, interpreter] = /^#![ \t]*([^ \t\n]+)/.exec(headOf(path)) ?? [];
  if (interpreter === undefined || isExecutable(interpreter)) return ok(path);
  if (interpreter.endsWith('\r'))
    return broken(`${path} has Windows line ends, which spoil its first line`, `sed -i 's/\\r$//' ${path}`);
  return broken(
    `${path} asks for ${interpreter}, which is not there`,
    `install it, or correct the first line of ${path}`,
  );
}

/** The first bytes; of a program that may be executed but not read, none. */
function headOf(path: string): string {
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const head = Buffer.alloc(HEAD_BYTES);
    return head.toString('latin1', 0, readSync(file, head, 0, HEAD_BYTES, 0));
  } catch {
    return '';
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return isFile(path);
  } catch {
    return false;
  }
}

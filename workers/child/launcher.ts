import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import type { Logger } from 'pino';
import type { Service } from '../../mesh/registry.ts';

interface LaunchLine {
  command: string;
  args: string[];
}

/** Looked for here and not in a PATH: what starts every server must not be what somebody put in front. */
const TOOL_FOLDERS = ['/usr/bin', '/bin', '/usr/sbin', '/sbin', '/usr/local/bin'];
const PROBE_TIMEOUT_MS = 2000;
/** What execvp(3) searches when there is no PATH. */
const DEFAULT_PATH = '/bin:/usr/bin';

const PROBE_FILES = 256;
const LOST = {
  setpriv:
    'a server that ignores the end of stdin outlives a worker that is killed, until the next one starts',
  prlimit: 'limits.open_files is not held',
};

interface Tools {
  setpriv: string | undefined;
  prlimit: string | undefined;
}

let tools: Tools | undefined;

/**
 * The service's command with what util-linux puts in front of it: `setpriv` (the kernel kills the server when the
 * worker is gone) and `prlimit` (open files). Each replaces itself by the next, so pid and pipes are the server's own.
 * Never --as or --nproc: the one kills Node at its start, the other counts all threads of the user.
 */
export function launchLine(service: Service, env: Readonly<Record<string, string>>, log: Logger): LaunchLine {
  const plain = { command: service.command, args: service.args };
  // With a tool in front, a missing command would look like a server that exits with 127; so spawn itself says it.
  if (!isFound(service, env.PATH)) return plain;
  tools ??= findTools(log);
  const { setpriv, prlimit } = tools;
  const line: string[] = [];
  // A server would end with the thread that started it, which may be any time before the worker does.
  if (setpriv !== undefined && isMainThread) line.push(...dieWithUs(setpriv));
  if (prlimit !== undefined) line.push(...openFiles(prlimit, service.limits.open_files));
  const [command = plain.command, ...args] = [...line, plain.command, ...plain.args];
  return { command, args };
}

/** Tried once for real: busybox has tools of the same names with other options, and a sandbox may forbid the call. */
function findTools(log: Logger): Tools {
  const setpriv = find('setpriv');
  const prlimit = find('prlimit');
  const asServer = [
    ...(setpriv ? dieWithUs(setpriv) : []),
    ...(prlimit ? openFiles(prlimit, PROBE_FILES) : []),
  ];
  // Both at once, since a first start waits for this; only when that fails, each alone.
  if (setpriv && prlimit && works([...asServer, prlimit, '--version'])) return { setpriv, prlimit };
  const found = {
    setpriv: setpriv && works([...dieWithUs(setpriv), setpriv, '--version']) ? setpriv : undefined,
    prlimit:
      prlimit && works([...openFiles(prlimit, PROBE_FILES), prlimit, '--version']) ? prlimit : undefined,
  };
  for (const [name, lost] of Object.entries(LOST)) {
    if (found[name as keyof Tools] !== undefined) continue;
    log.warn(`${name} is missing or does not work here (${lost}): install util-linux`);
  }
  return found;
}

function dieWithUs(setpriv: string): string[] {
  return [setpriv, '--pdeathsig', 'KILL', '--'];
}

/** Nobody but root may go beyond the hard limit, and prlimit would end instead of the server starting. */
function openFiles(prlimit: string, wanted: number): string[] {
  const files = Math.min(wanted, hardLimit());
  return [prlimit, `--nofile=${files}:${files}`, '--'];
}

function find(name: string): string | undefined {
  return TOOL_FOLDERS.map(folder => join(folder, name)).find(isExecutable);
}

function works([command = '', ...args]: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore', timeout: PROBE_TIMEOUT_MS, env: {} }).status === 0;
}

/** As execvp(3) and libuv look for it: in the child's own PATH and folder. */
function isFound({ command, cwd = '.' }: Service, path = DEFAULT_PATH): boolean {
  if (command.includes('/')) return isExecutable(resolve(cwd, command));
  return path.split(delimiter).some(folder => isExecutable(resolve(cwd, folder, command)));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function hardLimit(): number {
  try {
    const hard = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return hard === undefined ? Number.POSITIVE_INFINITY : Number(hard);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

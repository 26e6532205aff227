import { basename, dirname, isAbsolute, resolve } from 'node:path';
import type { ClientId, ClientServer, StdioSetup } from '../clients/client-format.ts';

/** What a command of a client's file needs to run on a worker: no cmd.exe, and a folder that relative paths start at. */
export interface Adapted {
  command: string;
  args: string[];
  cwd: string | undefined;
  changes: string[];
  /** What will not work on a worker as it is. */
  warnings: string[];
}

const CMD = /^(?:.*[\\/])?cmd(?:\.exe)?$/i;
const WINDOWS_SUFFIX = /^([\w.-]+)\.(?:cmd|exe|bat)$/i;
const WINDOWS_PATH = /(?:^|[=\s"'])(?:[A-Za-z]:[\\/]|\\\\[\w.-]+\\)/;
const CMD_VARIABLE = /%[A-Za-z_][A-Za-z0-9_()]*%/;
const SCRIPT = /^[\w@-][\w@.-]*(?:\/[\w@.-]+)*\.(?:js|mjs|cjs|ts|mts|py|sh|rb|jar|php|pl)$/;
const INTERPRETERS = /^(?:node|deno|bun|tsx|ts-node|python[\d.]*|ruby|php|perl|java|bash|sh|zsh)$/;
/** Folders beside which an editor's configuration stands. */
const EDITOR_FOLDERS = ['.vscode', '.cursor'];
/** Clients whose file belongs to no project. */
const USER_CLIENTS: readonly ClientId[] = ['claude', 'windsurf', 'cline'];

/** The folder where a client starts the servers of a file; undefined: none that is known. */
export function baseFolder(
  client: ClientId,
  path: string,
  { project }: ClientServer,
  home: string,
): string | undefined {
  if (project !== undefined) return project;
  const folder = dirname(resolve(path));
  const base = EDITOR_FOLDERS.includes(basename(folder)) ? dirname(folder) : folder;
  const isUsers = USER_CLIENTS.includes(client) || basename(path) === '.claude.json' || base === home;
  return isUsers ? undefined : base;
}

/** @param base where relative paths start */
export function adaptCommand(setup: StdioSetup, base: string | undefined): Adapted {
  const changes: string[] = [];
  const { command, args } = withoutCmd(setup, changes);
  const warnings = oddities({ ...setup, command, args });
  const cwd = setup.cwd === undefined ? undefined : absolute(setup.cwd, base, changes, warnings);
  if (cwd !== undefined) return { command, args, cwd, changes, warnings };
  const relative = relativePath(command, args);
  if (relative === undefined) return { command, args, cwd, changes, warnings };
  if (base === undefined) {
    warnings.push(`${relative} is a relative path, and nobody knows from where: set cwd`);
    return { command, args, cwd, changes, warnings };
  }
  changes.push(`cwd: ${base}, as ${relative} is relative to it`);
  return { command, args, cwd: base, changes, warnings };
}

/** `cmd /c npx …` is how clients on Windows start scripts; a worker starts them itself. */
function withoutCmd({ command, args }: StdioSetup, changes: string[]): { command: string; args: string[] } {
  let program = command;
  let rest = args;
  const [option = '', wrapped] = args;
  if (CMD.test(command) && /^\/[ck]$/i.test(option) && wrapped !== undefined) {
    // One text may hold the whole command line.
    const words =
      args.length === 2 && !/["^&|<>]/.test(wrapped) ? wrapped.trim().split(/\s+/) : args.slice(1);
    [program = '', ...rest] = words;
    changes.push(`${program} in place of ${command} ${option}, which is there for Windows`);
  }
  const [, bare] = WINDOWS_SUFFIX.exec(program) ?? [];
  if (bare !== undefined && !CMD.test(program)) {
    changes.push(`${bare} in place of ${program}, its name on Windows`);
    program = bare;
  }
  return { command: program, args: rest };
}

function absolute(cwd: string, base: string | undefined, changes: string[], warnings: string[]): string {
  if (isAbsolute(cwd) || cwd.startsWith('${') || WINDOWS_PATH.test(cwd)) return cwd;
  if (base === undefined) {
    warnings.push(`cwd is a relative path, and nobody knows from where: make it absolute`);
    return cwd;
  }
  const made = resolve(base, cwd);
  changes.push(`cwd: ${made} in place of ${cwd}, which is relative to the client's folder`);
  return made;
}

/** The first path that a working folder matters to. */
function relativePath(command: string, args: readonly string[]): string | undefined {
  const isRelative = (text: string) => /^\.{1,2}(?:$|[\\/])/.test(text);
  if (isRelative(command) || (/^[\w@-][^:]*\//.test(command) && !isAbsolute(command))) return command;
  const explicit = args.find(isRelative);
  if (explicit !== undefined) return explicit;
  return INTERPRETERS.test(basename(command)) ? args.find(arg => SCRIPT.test(arg)) : undefined;
}

function oddities({ command, args, env, cwd }: StdioSetup): string[] {
  const warnings: string[] = [];
  const fields: [string, string][] = [
    ['command', command],
    ...args.map((arg, i): [string, string] => [`args[${i}]`, arg]),
    ...[...env].map(([name, value]): [string, string] => [`env.${name}`, value]),
    ['cwd', cwd ?? ''],
  ];
  const windows = fields.filter(([, text]) => WINDOWS_PATH.test(text)).map(([field]) => field);
  if (windows.length > 0)
    warnings.push(`${windows.join(', ')}: a Windows path; give the one on the host of the workers`);
  const percent = fields.filter(([, text]) => CMD_VARIABLE.test(text)).map(([field]) => field);
  if (percent.length > 0)
    warnings.push(
      `${percent.join(', ')}: %NAME% is cmd.exe's and stays as it is; \${NAME} is the registry's`,
    );
  return [...warnings, ...passedOn(command, args, env)];
}

/** `docker run -e NAME`: the variable has to be there, and a worker hands down only what it is told to. */
function passedOn(command: string, args: readonly string[], env: ReadonlyMap<string, string>): string[] {
  if (!/^(?:docker|podman|nerdctl)$/.test(basename(command))) return [];
  const names = args.filter(
    (arg, i) => ['-e', '--env'].includes(args[i - 1] ?? '') && /^[A-Za-z_]\w*$/.test(arg) && !env.has(arg),
  );
  if (names.length === 0) return [];
  return [
    `-e ${names.join(', -e ')}: comes from the environment of the worker; \`env_allow\` lets it through`,
  ];
}

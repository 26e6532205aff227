import { type ParseArgsConfig, parseArgs } from 'node:util';
import { suggestion } from '../mesh/yaml-faults.ts';

export interface Command {
  /** One line for the list of commands. */
  summary: string;
  /** Does it and returns the exit code. @throws UsageError when the arguments make no sense */
  run(argv: string[]): number | Promise<number>;
}

type Options = NonNullable<ParseArgsConfig['options']>;

/** The command line makes no sense: exit code 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** Exit codes: done; could not be done; the command line makes no sense. */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/**
 * Runs the command that the first argument names; prints `help` when asked to.
 * @throws UsageError with the nearest name when there is no such command
 */
export async function dispatch(
  commands: Readonly<Record<string, Command>>,
  [name, ...rest]: string[],
  { program, help }: { program: string; help: string },
): Promise<number> {
  if (name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(help);
    return EXIT.ok;
  }
  if (name === undefined) {
    process.stderr.write(help);
    return EXIT.usage;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command) return command.run(rest);
  const hint = suggestion(name, Object.keys(commands));
  throw new UsageError(`unknown command "${name}"${hint}; \`${program} --help\` lists them`);
}

/** Commands and their summaries as indented columns. */
export function listCommands(commands: Readonly<Record<string, Command>>): string {
  const width = Math.max(...Object.keys(commands).map(name => name.length));
  return Object.entries(commands)
    .map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}\n`)
    .join('');
}

/**
 * `parseArgs` of node:util, with `--help` and `-h` added.
 * @throws UsageError for an unknown option, with the nearest one, or when arguments are missing or too many
 */
export function parseOptions<T extends Options>(argv: string[], options: T, wanted: readonly string[] = []) {
  const known = { ...options, help: { type: 'boolean', short: 'h' } } as const;
  const { values, positionals } = parse(argv, known);
  const missing = wanted[positionals.length];
  if (missing !== undefined && !(values as { help?: boolean }).help)
    throw new UsageError(`<${missing}> is missing`);
  const surplus = positionals[wanted.length];
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is one argument too many`);
  return { values, positionals };
}

function parse<T extends Options>(argv: string[], options: T) {
  try {
    return parseArgs({ args: argv, options, allowPositionals: true, strict: true });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (!code?.startsWith('ERR_PARSE_ARGS')) throw cause;
    const [, unknown] = /^Unknown option '(--?[^']+)'/.exec(message) ?? [];
    if (unknown === undefined) throw new UsageError(message.split('\n')[0], { cause });
    const known = Object.keys(options).map(name => `--${name}`);
    throw new UsageError(`unknown option ${unknown}${suggestion(unknown, known)}`, { cause });
  }
}

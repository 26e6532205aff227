import { CommanderError } from 'commander';
import { CommandError, EXIT, MeshCommand, UsageError } from './command.ts';
import { answer } from './output.ts';
import { plain } from './table.ts';

/** One command: a line for the list of all, and where its definition is loaded from when it is called. */
export interface Entry {
  summary: string;
  /** Gives what adds description, arguments, options and action to the command. */
  load(): Promise<(command: MeshCommand) => void>;
  /** Not in the list. */
  hidden?: boolean;
}

const HELP = `
\`mesh <command> --help\` tells more.

Exit codes: 0 done; 1 failed, or something was found amiss; 2 wrong usage; 3 the called tool says that it failed;
130 cancelled by Ctrl-C.

With --json, stdout is one JSON document. When it could not be done, that is {"error": {"code", "message", …}}; "code" is
"usage", "failed" or one of the mesh's error codes.`;

/** The program with its commands, of which the named one is defined: the others are lines of the list. */
export async function createProgram(
  commands: Readonly<Record<string, Entry>>,
  named: string | undefined,
): Promise<MeshCommand> {
  const program = new MeshCommand('mesh')
    .description('MCP servers as services')
    // What follows a command's name is its own.
    .enablePositionalOptions()
    .exitOverride()
    .addHelpText('after', HELP);
  for (const [name, { summary, hidden = false, load }] of Object.entries(commands)) {
    const command = program.command(name, { hidden }).description(summary).summary(summary);
    if (name === named) (await load())(command);
  }
  return program;
}

/** Runs the command line (without node and script) and sets the exit code. */
export async function runProgram(commands: Readonly<Record<string, Entry>>, argv: string[]): Promise<void> {
  try {
    const program = await createProgram(commands, argv[0] === 'help' ? argv[1] : argv[0]);
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    process.exitCode = fail(error as Error, isForPrograms(argv));
  }
}

function isForPrograms(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return argv.slice(0, end < 0 ? undefined : end).includes('--json');
}

/** Tells what is wrong, and gives the exit code. */
function fail(error: Error, json: boolean): number {
  // Help has been printed: asked for, or in place of a command.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  const isUsage = error instanceof UsageError;
  const { facts, hints, exitCode } =
    error instanceof CommandError
      ? error
      : { facts: {}, hints: [], exitCode: isUsage ? EXIT.usage : EXIT.failed };
  if (json) {
    const code = isUsage ? 'usage' : 'failed';
    answer(true, { error: { code, message: error.message, ...facts } }, '');
    return exitCode;
  }
  // A fault of ours needs its place, one of the user's does not.
  const isOurs = error instanceof TypeError || error instanceof ReferenceError;
  const text = (isOurs ? error.stack : undefined) ?? error.message;
  const lines = [...text.split('\n'), ...hints.map(hint => `  ${hint}`)];
  process.stderr.write(`mesh: ${lines.map(plain).join('\n')}\n`);
  return exitCode;
}

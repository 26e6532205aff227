#!/usr/bin/env node
import { type Command, dispatch, EXIT, listCommands, UsageError } from './command.ts';

/** `mesh`: the command line. A command's code is loaded when it is called. */

const COMMANDS: Readonly<Record<string, Command>> = {
  keys: {
    summary: 'make, rotate and revoke keys',
    run: async argv => (await import('./keys.ts')).keysCommand(argv),
  },
};

const HELP = `mesh – MCP servers as services

Usage: mesh <command> [options]

${listCommands(COMMANDS)}
\`mesh <command> --help\` tells more. Exit codes: 0 done, 1 failed, 2 wrong usage.
`;

process.stdout.on('error', error => {
  // `mesh … | head`: the reader has had enough.
  if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  process.exit();
});
try {
  process.exitCode = await dispatch(COMMANDS, process.argv.slice(2), { program: 'mesh', help: HELP });
} catch (error) {
  process.exitCode = error instanceof UsageError ? EXIT.usage : EXIT.failed;
  // A fault of ours needs its place, one of the user's does not.
  const ours = error instanceof TypeError || error instanceof ReferenceError;
  process.stderr.write(`mesh: ${(ours ? error.stack : undefined) ?? (error as Error).message}\n`);
}

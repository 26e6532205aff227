#!/usr/bin/env node
import { type Command, dispatch, EXIT, listCommands, UsageError } from './command.ts';

/** `mesh`: the command line. A command's code is loaded when it is called. */

const COMMANDS: Readonly<Record<string, Command>> = {
  up: {
    summary: 'start the mesh on this machine',
    run: async argv => (await import('./up.ts')).upCommand(argv),
  },
  status: {
    summary: 'show every instance, and what is amiss',
    run: async argv => (await import('./status.ts')).statusCommand(argv),
  },
  scale: {
    summary: 'have more or fewer instances of a service',
    run: async argv => (await import('./fleet-commands.ts')).scaleCommand(argv),
  },
  restart: {
    summary: 'restart a service, one instance after the other, or one instance',
    run: async argv => (await import('./fleet-commands.ts')).restartCommand(argv),
  },
  drain: {
    summary: 'let an instance finish its calls and end',
    run: async argv => (await import('./fleet-commands.ts')).drainCommand(argv),
  },
  logs: {
    summary: "show the last lines of a service's MCP servers",
    run: async argv => (await import('./fleet-commands.ts')).logsCommand(argv),
  },
  doctor: {
    summary: 'find the first broken link of each service, and how to mend it',
    run: async argv => (await import('./doctor.ts')).doctorCommand(argv),
  },
  keys: {
    summary: 'make, rotate and revoke keys',
    run: async argv => (await import('./keys.ts')).keysCommand(argv),
  },
  why: {
    summary: 'tell what became of one call',
    run: async argv => (await import('./why.ts')).whyCommand(argv),
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

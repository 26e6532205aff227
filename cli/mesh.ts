#!/usr/bin/env node
import { type Entry, runProgram } from './program.ts';

/**
 * `mesh`: the command line. A command's code is loaded when it is called.
 *
 * To add a command: a line in COMMANDS below, and a module that exports `function xCommand(command: MeshCommand): void`.
 * That one gives the command (commander's, see command.ts) its `.about(text)`, `.argument`s, `.option`s and `.note`
 * (exit codes), and last `.run((argument, options) => exitCode)`, which adds `--json`. Subcommands: `command.command(…)`,
 * each with a `.run` of its own. In `run`: with `options.json`, `answer(…)` of output.ts prints one JSON document; throw
 * UsageError for exit code 2, and any other Error, or CommandError with more members for `{"error"}`, for 1. Helper
 * text for people goes to stderr by `tell(…)`. Help, nearest names, too many arguments and `--json` errors are done
 * here. What is slow to load belongs behind an `import()` in `run`.
 */
const COMMANDS: Readonly<Record<string, Entry>> = {
  up: {
    summary: 'start the mesh on this machine',
    load: async () => (await import('./up.ts')).upCommand,
  },
  status: {
    summary: 'show every instance, and what is amiss',
    load: async () => (await import('./status.ts')).statusCommand,
  },
  scale: {
    summary: 'have more or fewer instances of a service',
    load: async () => (await import('./fleet-commands.ts')).scaleCommand,
  },
  restart: {
    summary: 'restart a service, one instance after the other, or one instance',
    load: async () => (await import('./fleet-commands.ts')).restartCommand,
  },
  drain: {
    summary: 'let an instance finish its calls and end',
    load: async () => (await import('./fleet-commands.ts')).drainCommand,
  },
  call: {
    summary: 'call a tool through the gateway',
    load: async () => (await import('./call.ts')).callCommand,
  },
  tools: {
    summary: 'list the tools of a service, or explain one',
    load: async () => (await import('./tools.ts')).toolsCommand,
  },
  logs: {
    summary: "show the last lines of a service's MCP servers",
    load: async () => (await import('./logs.ts')).logsCommand,
  },
  'log-level': {
    summary: 'have workers log more or less, while they run',
    load: async () => (await import('./log-level.ts')).logLevelCommand,
  },
  doctor: {
    summary: 'find the first broken link of each service, and how to mend it',
    load: async () => (await import('./doctor.ts')).doctorCommand,
  },
  validate: {
    summary: 'check registry and access policy',
    load: async () => (await import('./validate.ts')).validateCommand,
  },
  keys: {
    summary: 'make, rotate and revoke keys',
    load: async () => (await import('./keys.ts')).keysCommand,
  },
  import: {
    summary: "make services of the servers in an MCP client's configuration",
    load: async () => (await import('./import.ts')).importCommand,
  },
  export: {
    summary: "print an MCP client's configuration for the mesh",
    load: async () => (await import('./export.ts')).exportCommand,
  },
  render: {
    summary: 'print what runs the services in containers (Compose, Nomad, Kubernetes)',
    load: async () => (await import('./render.ts')).renderCommand,
  },
  connect: {
    summary: 'be a service of the mesh for a client that speaks stdio',
    load: async () => (await import('./connect.ts')).connectCommand,
  },
  migrate: {
    summary: 'prove that a service answers as the old server does, and move a client to it',
    load: async () => (await import('./migrate.ts')).migrateCommand,
  },
  why: {
    summary: 'tell what became of one call',
    load: async () => (await import('./why.ts')).whyCommand,
  },
  completion: {
    summary: 'print a script that completes commands in a shell',
    load: async () => (await import('./completion.ts')).completionCommand,
  },
  __complete: {
    summary: 'what a word may become, for the scripts of completion',
    load: async () => (await import('./completion.ts')).completeCommand(COMMANDS),
    hidden: true,
  },
};

process.stdout.on('error', error => {
  // `mesh … | head`: the reader has had enough.
  if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  process.exit();
});
await runProgram(COMMANDS, process.argv.slice(2));

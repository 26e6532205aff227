import { Option } from 'commander';
import type { ClientFormat } from './clients/client-format.ts';
import { clientOption } from './clients/formats.ts';
import { type CommonOptions, type MeshCommand, UsageError } from './command.ts';
import { readPercent, readSeconds } from './option-values.ts';

const ABOUT = `Proves that a service of the mesh answers as the old server does, and then moves a client to it. A parity run starts the old way, as a client's configuration file or the registry has it, and goes the new way through the gateway, side by side: it compares what the server says of itself, its tools, prompts, resources and templates, and the answers of tools that only read.

The key of the caller comes from MESH_API_KEY (or MESH_API_KEY_FILE).`;
const NOTE = `Tools are called that --probe names, and those that say of themselves that they only read (readOnlyHint) where their schemas give examples or defaults of what they want. The old way is asked twice: where its own answers differ, nothing is compared, and the report says so.

--switch lets the client's entry name the mesh: by URL where that client's file knows URLs, else by \`mesh connect\`. The file as it was stays beside it, and --rollback brings it back byte for byte. When something else has changed it since, --rollback says what, and --entry-only brings back this entry alone.

--percent with --switch moves gradually: \`mesh connect\` sends so many of 100 new sessions to the mesh, the others to the old server. Later, --percent alone changes the share in the registry; 0 is the way back at once.

Exit codes: 0 no differences, or done; 1 different, or it could not be done; 2 wrong usage. --json prints the whole comparison.`;
const TIMEOUT_MAX_S = 3600;
const CALLS_MAX = 10_000;

export interface MigrateOptions extends CommonOptions {
  config?: string;
  name?: string;
  client?: ClientFormat;
  registry?: string;
  url?: string;
  probe?: string[];
  calls: number;
  /** Seconds. */
  timeout: number;
  switch?: boolean;
  acceptDifferences?: boolean;
  rollback?: boolean;
  entryOnly?: boolean;
  stdio?: boolean;
  keyFile?: string;
  percent?: number;
}

/** `mesh migrate <service>` */
export function migrateCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .argument('<service>')
    .option(
      '--config <file>',
      "the client's configuration file (default: the old way is the registry's command)",
    )
    .option('--name <entry>', 'the entry in it (default: the one of that name)')
    .addOption(clientOption('whose file it is (default: by its name and form)'))
    .repeatable('--probe <tool={…}>', 'a call whose answers are compared; may stand several times')
    .option('--calls <n>', 'calls each way for the latency', readCalls, 20)
    .option(
      '--timeout <s>',
      'longest time for a start or an answer, in seconds',
      readSeconds('--timeout', TIMEOUT_MAX_S),
      60,
    )
    .option('--switch', "then let the client's entry name the mesh")
    .option('--accept-differences', 'with --switch: also when there are differences')
    .option('--stdio', 'with --switch: by `mesh connect` in any case')
    .option('--key-file <path>', 'with --switch by `mesh connect`: the file that holds the API key')
    .addOption(new Option('--rollback', 'bring the file back as it was').conflicts('switch'))
    .option('--entry-only', "with --rollback: the entry's old bytes alone")
    .option('--percent <n>', 'how many of 100 new sessions go to the mesh', readPercent('--percent'))
    .registryOption()
    .gatewayOption()
    .note(NOTE)
    .run(async (service: string, options: MigrateOptions) =>
      (await import('./migrate/run.ts')).runMigrate(service, options),
    );
}

function readCalls(text: string): number {
  const calls = Number(text);
  if (!Number.isInteger(calls) || calls < 1 || calls > CALLS_MAX)
    throw new UsageError(`--calls: "${text}" is no whole number from 1 to ${CALLS_MAX}`);
  return calls;
}

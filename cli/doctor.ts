import { readFileSync } from 'node:fs';
import { type CommonOptions, type MeshCommand, UsageError } from './command.ts';
import { readSeconds, readUrl } from './option-values.ts';

const ABOUT = `Looks at every link between the registry and a caller, and names for each service the first one that is
broken and how to mend it.`;

const NOTE = `Links:
  registry   the file can be read, and the supervisor uses it
  command    the program is there, in the server's own PATH and folder
  server     it starts and shakes hands; where none runs, one is started here for a moment
  worker     its worker answers at its address
  consul     it is registered, at the address where it listens
  reachable  Consul gets through to that address
  gateway    the gateway knows it and has instances to send calls to
  call       tools/list goes there and back

Exit codes: 0 nothing is broken, 1 something is, 2 wrong usage. --json: {"<service>": [{"link", "verdict"}, …]}.`;

const DEFAULT_TIMEOUT_S = 15;
const TIMEOUT_MAX_S = 600;

export interface DoctorOptions extends CommonOptions {
  key?: string;
  gateway?: string;
  consul?: string;
  /** Seconds. */
  timeout: number;
  registry?: string;
}

/** `mesh doctor [service]` */
export function doctorCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .argument('[service]', 'default: all')
    .option(
      '--key <key>',
      'API key or token of a caller, or @FILE that holds it (default: $MESH_API_KEY)',
      readKey,
    )
    .option('--gateway <url>', 'default: http://127.0.0.1:$MESH_PORT (10010)', readUrl('--gateway'))
    .option(
      '--consul <url>',
      'default: $CONSUL_HTTP_ADDR, else what the workers on this host were told',
      readUrl('--consul'),
    )
    .option(
      '--timeout <s>',
      "longest time for a server's start and for a call, in seconds",
      readSeconds('--timeout', TIMEOUT_MAX_S),
      DEFAULT_TIMEOUT_S,
    )
    .registryOption()
    .note(NOTE)
    .run(async (service: string | undefined, options: DoctorOptions) =>
      (await import('./doctor/diagnose.ts')).diagnose(service, options),
    );
}

/** From a file it is in no list of processes and in no shell history. */
function readKey(text: string): string {
  if (!text.startsWith('@')) return text;
  try {
    return readFileSync(text.slice(1), 'utf8').trim();
  } catch (cause) {
    throw new UsageError(`--key: cannot read ${text.slice(1)}: ${(cause as Error).message}`, { cause });
  }
}

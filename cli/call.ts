import { Option } from 'commander';
import type { CommonOptions, MeshCommand } from './command.ts';
import { readSeconds } from './option-values.ts';

const ABOUT = `Calls a tool through the gateway and prints the text of its answer. In place of a tool, an MCP method
such as resources/read may stand.

The key of the caller comes from MESH_API_KEY (or MESH_API_KEY_FILE), never from the command line, which others can
see.`;

const NOTE = `Values of --arg are read as the tool's schema says: a string stays as it is; numbers, true and false, lists and objects are
read as JSON. An item of a list may be given alone, again for each; a.b=v sets a member of an object. \`mesh tools <service>
<tool>\` shows what there is.

Exit codes: 0 done; 1 failed: no gateway, not allowed, no instance, time-out …; 2 wrong usage, or arguments that the tool does
not have; 3 the tool itself says that it failed; 130 cancelled by Ctrl-C. --json prints the result as the server gave it.`;

const TIMEOUT_MAX_S = 86_400;

export interface CallOptions extends CommonOptions {
  arg?: string[];
  args?: string;
  url?: string;
  /** Seconds; undefined: as the service has it. */
  timeout?: number;
  progress?: boolean;
}

/** `mesh call <service> <tool>` */
export function callCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .argument('<service>')
    .argument('<tool>')
    .repeatable('--arg <name=value>', 'an argument; may stand several times')
    .addOption(
      new Option('--args <json>', 'all arguments: a JSON object, @FILE, or - for stdin').conflicts('arg'),
    )
    .gatewayOption()
    .option(
      '--timeout <s>',
      'longest time for the call, in seconds (default: what the service has)',
      readSeconds('--timeout', TIMEOUT_MAX_S),
    )
    .option('--progress', 'tell progress and logs on stderr (default: when that is a terminal)')
    .option('--no-progress', 'do not')
    .note(NOTE)
    .run(async (service: string, tool: string, options: CallOptions) =>
      (await import('./call/run.ts')).runCall(service, tool, options),
    );
}

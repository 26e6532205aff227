import { Option } from 'commander';
import { CLIENT_IDS } from './clients/client-format.ts';
import type { CommonOptions, MeshCommand } from './command.ts';
import { readPercent, readSeconds } from './option-values.ts';

const ABOUT = `A stdio MCP server that forwards to a service of the mesh, for clients that speak only stdio. Messages pass as they were written, in both directions and both eras of MCP; sessions that the mesh loses are begun again, and a gateway that is away is waited for. The key of the caller comes from MESH_API_KEY (or MESH_API_KEY_FILE), never from the command line, which others can see.`;
const NOTE = `With --legacy, each run is decided once: --percent of them go to the mesh, or as many as the service's traffic_percent says; the others start the old server and leave the client's stdin and stdout to it. When the mesh cannot be asked, the old server it is.

stdout is the protocol and nothing else. It ends when stdin ends; a call that was under way when the connection broke fails with "delivered": "unknown".

Exit codes: 0 done; 1 it cannot begin; 2 wrong usage; with --legacy, those of the old server.`;
const WAIT_MAX_S = 86_400;

export interface ConnectOptions extends CommonOptions {
  url?: string;
  /** Seconds. */
  wait: number;
  legacy?: string;
  /** Its name: what reads files is not loaded for most sessions. */
  client?: string;
  percent?: number;
}

/** `mesh connect <service>` */
export function connectCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .argument('<service>')
    .gatewayOption()
    .option(
      '--wait <s>',
      'how long a message waits for a gateway that is away, in seconds',
      readSeconds('--wait', WAIT_MAX_S),
      30,
    )
    .option('--legacy <file#entry>', "the old server: an entry of a client's configuration file")
    .addOption(
      new Option(
        '--client <name>',
        'with --legacy: whose file it is (default: by its name and form)',
      ).choices([...CLIENT_IDS]),
    )
    .option('--percent <n>', 'with --legacy: how many of 100 runs go to the mesh', readPercent('--percent'))
    .note(NOTE)
    .run(async (service: string, options: ConnectOptions) =>
      (await import('./connect/run.ts')).runConnect(service, options),
    );
}

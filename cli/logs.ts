import { type CommonOptions, EXIT, type MeshCommand } from './command.ts';
import { connectSupervisor } from './control.ts';
import { findTarget } from './fleet-target.ts';
import { answer, tell } from './output.ts';
import { plain } from './table.ts';

const ABOUT = `The last lines that a service's MCP servers wrote to stderr, those of earlier runs included, each of
which ends with how it ended. Where there are none, those that the last worker wrote itself before it ended. With
several instances, each line begins with its instance.`;

interface Options extends CommonOptions {
  registry?: string;
}

/** `mesh logs <service|instance>` */
export function logsCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .argument('<service|instance>')
    .registryOption('the registry file of the supervisor')
    .note(
      'Exit codes: 0 done, 1 refused, or no supervisor runs; 2 wrong usage. --json: {"<instance>": ["line", …]}.',
    )
    .run(showLogs);
}

async function showLogs(name: string, { registry, json }: Options): Promise<number> {
  const control = connectSupervisor(registry);
  const logs = await control.logs(await findTarget(control, name));
  const entries = Object.entries(logs);
  const lines = entries.flatMap(([slot, own]) =>
    own.map(line => (entries.length > 1 ? `${slot}  ${plain(line)}\n` : `${plain(line)}\n`)),
  );
  answer(json, logs, lines.join(''));
  if (lines.length === 0) tell(`${plain(name)}: nothing has been written to stderr`);
  return EXIT.ok;
}

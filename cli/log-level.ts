import { Argument } from 'commander';
import { LOG_LEVELS, type LogLevel } from '../workers/log-level.ts';
import { CommandError, type CommonOptions, EXIT, type MeshCommand } from './command.ts';
import { connectSupervisor } from './control.ts';
import { findTarget } from './fleet-target.ts';
import { answer } from './output.ts';

const ABOUT = `Has the workers of a service, or one of them, log more or less from now on, until they end: one that is
started again logs as MESH_LOG_LEVEL says. No call notices it. \`mesh up\` shows what they log.`;

interface Options extends CommonOptions {
  registry?: string;
}

/** `mesh log-level <service|instance> <level>` */
export function logLevelCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .argument('<service|instance>')
    .addArgument(new Argument('<level>').choices(LOG_LEVELS))
    .registryOption('the registry file of the supervisor')
    .note(
      'Exit codes: 0 done, 1 a worker does not answer, refused, or no supervisor runs; 2 wrong usage. --json: {"<instance>": "level", …}.',
    )
    .run(setLogLevel);
}

async function setLogLevel(name: string, level: LogLevel, { registry, json }: Options): Promise<number> {
  const control = connectSupervisor(registry);
  const levels = await control.setLogLevel(await findTarget(control, name), level);
  const deaf = Object.keys(levels).filter(slot => levels[slot] !== level);
  if (deaf.length > 0) {
    throw new CommandError(`no worker answers at ${deaf.join(', ')}`, {
      facts: { levels },
      hints: ['`mesh status` shows how they are'],
    });
  }
  answer(
    json,
    levels,
    Object.keys(levels)
      .map(slot => `${slot} logs at ${level}\n`)
      .join(''),
  );
  return EXIT.ok;
}

import { type CommonOptions, type MeshCommand, UsageError } from './command.ts';
import { connectSupervisor } from './control.ts';
import { begun, reportInstance, reportService } from './fleet-report.ts';
import { findTarget } from './fleet-target.ts';
import { plain } from './table.ts';

/** `mesh scale`, `restart` and `drain`: orders to the supervisor that runs on this host. */

const SCALE = `Has so many instances of a service, until the registry file says something else. One that follows its
load goes on from there. Instances that go finish their calls first.`;
const RESTART = `Restarts a service's instances one after the other, each when the one before passes, or one instance.
Also brings back what is parked or drained. An instance is named by its id or as <service>#<number>; see \`mesh
status\`.`;
const DRAIN = `Takes an instance out of Consul, lets it finish its calls, and ends it. It stays away until it is
restarted.`;
const NOTE =
  'Exit codes: 0 done, 1 it gets no further (the reason is printed), refused, or no supervisor runs; 2 wrong usage.';

interface Options extends CommonOptions {
  registry?: string;
  /** false: --no-wait */
  wait: boolean;
}

/** `mesh scale <service> <n>` */
export function scaleCommand(command: MeshCommand): void {
  order(command.about(SCALE).argument('<service>').argument('<n>', 'how many')).run(scale);
}

/** `mesh restart <service|instance>` */
export function restartCommand(command: MeshCommand): void {
  order(command.about(RESTART).argument('<service|instance>')).run(restart);
}

/** `mesh drain <instance>` */
export function drainCommand(command: MeshCommand): void {
  order(command.about(DRAIN).argument('<instance>')).run(drain);
}

function order(command: MeshCommand): MeshCommand {
  return command
    .option('--no-wait', 'do not wait until it is done')
    .registryOption('the registry file of the supervisor')
    .note(NOTE);
}

async function scale(service: string, text: string, { registry, wait, json }: Options): Promise<number> {
  if (!/^\d{1,6}$/.test(text)) throw new UsageError(`"${plain(text)}" is no number of instances`);
  const instances = Number(text);
  const status = await connectSupervisor(registry).scale(service, instances, { wait });
  if (!wait) return begun(`${service} is being scaled to ${instances}`, json);
  return reportService(status, service, json);
}

async function restart(name: string, { registry, wait, json }: Options): Promise<number> {
  const control = connectSupervisor(registry);
  const target = await findTarget(control, name);
  const status = await control.restart(target, { wait });
  if (!wait) return begun(`${name} is being restarted`, json);
  if ('service' in target) return reportService(status, target.service, json);
  return reportInstance(status, name, 'ready', json);
}

async function drain(name: string, { registry, wait, json }: Options): Promise<number> {
  const control = connectSupervisor(registry);
  const before = await control.status();
  const own = before.instances.filter(({ service }) => service === name).map(({ id, slot }) => id ?? slot);
  if (own.length > 0) throw new UsageError(`"${name}" is a service: name one of ${own.join(', ')}`);
  // Its id may be gone with it: the slot stays.
  const slot = before.instances.find(({ id }) => id === name)?.slot ?? name;
  const status = await control.drain(name, { wait });
  return wait ? reportInstance(status, slot, 'drained', json) : begun(`${name} is being drained`, json);
}

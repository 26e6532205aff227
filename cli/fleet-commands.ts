import { suggestion } from '../mesh/yaml-faults.ts';
import type { ControlClient, Target } from '../workers/fleet/control-client.ts';
import type { FleetStatus } from '../workers/fleet/status.ts';
import { EXIT, parseOptions, UsageError } from './command.ts';
import { connectSupervisor } from './control.ts';
import { isServed, notesOf } from './status.ts';
import { plain } from './table.ts';

/** `mesh scale`, `restart`, `drain` and `logs`: orders to the supervisor that runs on this host. */

const COMMON = `
Options:
  --registry FILE  the registry file of the supervisor (default: $MESH_REGISTRY or config/mcp-mesh-registry.yaml)`;
const ORDER = `${COMMON}
  --no-wait        do not wait until it is done

Exit codes: 0 done, 1 it gets no further (the reason is printed), refused, or no supervisor runs; 2 wrong usage.
`;
const SCALE = `Usage: mesh scale <service> <n> [--no-wait] [--registry <file>]

Has so many instances of a service, until the registry file says something else. One that follows its load goes on from
there. Instances that go finish their calls first.
${ORDER}`;
const RESTART = `Usage: mesh restart <service|instance> [--no-wait] [--registry <file>]

Restarts a service's instances one after the other, each when the one before passes, or one instance. Also brings back
what is parked or drained. An instance is named by its id or as <service>#<number>; see \`mesh status\`.
${ORDER}`;
const DRAIN = `Usage: mesh drain <instance> [--no-wait] [--registry <file>]

Takes an instance out of Consul, lets it finish its calls, and ends it. It stays away until it is restarted.
${ORDER}`;
const LOGS = `Usage: mesh logs <service|instance> [--registry <file>]

The last lines that a service's MCP servers wrote to stderr, those of earlier runs included, each of which ends with how
it ended. With several instances, each line begins with its instance.
${COMMON}

Exit codes: 0 done, 1 refused, or no supervisor runs; 2 wrong usage.
`;

const REGISTRY = { registry: { type: 'string' } } as const;
const OPTIONS = { ...REGISTRY, 'no-wait': { type: 'boolean' } } as const;

interface Values {
  help?: boolean;
  registry?: string;
  'no-wait'?: boolean;
}

/** `mesh scale <service> <n>`. @throws UsageError, ControlError */
export async function scaleCommand(argv: string[]): Promise<number> {
  const [{ help, registry, 'no-wait': later }, [service = '', text = '']] = read(argv, OPTIONS, [
    'service',
    'n',
  ]);
  if (help) return print(SCALE);
  if (!/^\d{1,6}$/.test(text)) throw new UsageError(`"${plain(text)}" is no number of instances`);
  const instances = Number(text);
  const status = await connectSupervisor(registry).scale(service, instances, { wait: !later });
  return later ? begun(`${service} is being scaled to ${instances}`) : reportService(status, service);
}

/** `mesh restart <service|instance>`. @throws UsageError, ControlError */
export async function restartCommand(argv: string[]): Promise<number> {
  const [{ help, registry, 'no-wait': later }, [name = '']] = read(argv, OPTIONS, ['service|instance']);
  if (help) return print(RESTART);
  const control = connectSupervisor(registry);
  const target = await findTarget(control, name);
  const status = await control.restart(target, { wait: !later });
  if (later) return begun(`${name} is being restarted`);
  return 'service' in target ? reportService(status, target.service) : reportInstance(status, name, 'ready');
}

/** `mesh drain <instance>`. @throws UsageError, ControlError */
export async function drainCommand(argv: string[]): Promise<number> {
  const [{ help, registry, 'no-wait': later }, [name = '']] = read(argv, OPTIONS, ['instance']);
  if (help) return print(DRAIN);
  const control = connectSupervisor(registry);
  const before = await control.status();
  const own = before.instances.filter(({ service }) => service === name).map(({ id, slot }) => id ?? slot);
  if (own.length > 0) throw new UsageError(`"${name}" is a service: name one of ${own.join(', ')}`);
  // Its id may be gone with it: the slot stays.
  const slot = before.instances.find(({ id }) => id === name)?.slot ?? name;
  const status = await control.drain(name, { wait: !later });
  return later ? begun(`${name} is being drained`) : reportInstance(status, slot, 'drained');
}

/** `mesh logs <service|instance>`. @throws UsageError, ControlError */
export async function logsCommand(argv: string[]): Promise<number> {
  const [{ help, registry }, [name = '']] = read(argv, REGISTRY, ['service|instance']);
  if (help) return print(LOGS);
  const control = connectSupervisor(registry);
  const entries = Object.entries(await control.logs(await findTarget(control, name)));
  const lines = entries.flatMap(([slot, own]) =>
    own.map(line => (entries.length > 1 ? `${slot}  ${plain(line)}` : plain(line))),
  );
  for (const line of lines) process.stdout.write(`${line}\n`);
  if (lines.length === 0) tell(`${plain(name)}: nothing has been written to stderr`);
  return EXIT.ok;
}

function read(
  argv: string[],
  options: typeof OPTIONS | typeof REGISTRY,
  wanted: readonly string[],
): [Values, string[]] {
  const { values, positionals } = parseOptions(argv, options, wanted);
  return [values as Values, positionals];
}

/** @throws UsageError with the nearest name when there is neither such a service nor such an instance */
async function findTarget(control: ControlClient, name: string): Promise<Target> {
  const { services, instances } = await control.status();
  if (services.some(({ service }) => service === name)) return { service: name };
  if (instances.some(({ id, slot }) => id === name || slot === name)) return { instance: name };
  const names = services.map(({ service }) => service);
  const known = [...names, ...instances.flatMap(({ id, slot }) => [slot, ...(id === null ? [] : [id])])];
  const shown = plain(name).slice(0, 200);
  throw new UsageError(
    `no service or instance "${shown}"${suggestion(shown, known)}; there are: ${names.join(', ')}, and their instances in \`mesh status\``,
  );
}

function reportService(status: FleetStatus, name: string): number {
  const row = status.services.find(({ service }) => service === name);
  if (!row) {
    tell(`${name} is gone: the registry file has it no more`);
    return EXIT.failed;
  }
  if (isServed(row) && row.rollout === null)
    return print(`${name}: ${row.ready} of ${row.wanted} instances ready\n`);
  for (const note of notesOf(row, status.instances)) tell(plain(note.replace(/^! /, '')));
  tell(`\`mesh doctor ${name}\` finds the cause`);
  return EXIT.failed;
}

function reportInstance(status: FleetStatus, name: string, wanted: 'ready' | 'drained'): number {
  const row = status.instances.find(({ id, slot }) => id === name || slot === name);
  const shown = row?.id ?? name;
  // An instance that was one too many goes with being drained.
  if (wanted === 'drained' && (!row || row.state === 'drained'))
    return print(`${shown} is drained; \`mesh restart ${row?.slot ?? name}\` brings it back\n`);
  if (row?.state === wanted) return print(`${shown} is ${wanted}\n`);
  const why = row ? `${row.state}: ${row.reason || row.last_error || 'no reason known'}` : 'gone';
  tell(plain(`${shown} is not ${wanted} but ${why}; \`mesh doctor ${row?.service ?? ''}\` finds the cause`));
  return EXIT.failed;
}

function begun(text: string): number {
  return print(`${text}; \`mesh status\` shows how far it is\n`);
}

function print(text: string): number {
  process.stdout.write(text);
  return EXIT.ok;
}

function tell(text: string): void {
  process.stderr.write(`mesh: ${text}\n`);
}

import { setTimeout as delay } from 'node:timers/promises';
import type { ControlClient } from '../workers/fleet/control-client.ts';
import type { FleetStatus, InstanceRow, ServiceRow } from '../workers/fleet/status.ts';
import { type CommonOptions, EXIT, type MeshCommand, UsageError } from './command.ts';
import { connectSupervisor } from './control.ts';
import { answer } from './output.ts';
import { type Column, cutTo, formatTable, plain } from './table.ts';

const ABOUT = `One row for each instance that the supervisor on this host (\`mesh up\`, \`npm start\`) runs, and a
line for each service that has fewer instances than it wants, with the reason. A narrow terminal shows fewer columns.`;

const NOTE = `  INSTANCE  id in Consul, or <service>#<number> until it has one; both name it in other commands
  FLIGHT    calls in its MCP server
  QUEUE     calls that wait for a place there
  RSS       memory of the worker and of all processes below it
  RESTARTS  of the worker + of its MCP server since the worker runs
  UPTIME    since the worker was started

Exit codes: 0 all that is wanted is ready, 1 something is not, the registry file has a fault, or no supervisor runs;
2 wrong usage. With --watch: 0. --json prints the supervisor's own answer.`;

const WATCH_MS = 2000;
const HOME = '\u001b[H';
const ERASE_LINE = '\u001b[K';
const ERASE_BELOW = '\u001b[J';
const CLEAR = `${HOME}\u001b[2J`;
const NONE = '–';
const MB = 1_048_576;

const COLUMNS: readonly Column<InstanceRow>[] = [
  { title: 'SERVICE', cell: row => row.service, least: 10 },
  { title: 'INSTANCE', cell: row => row.id ?? row.slot, least: 12 },
  { title: 'ADDRESS', cell: row => row.address ?? NONE, spare: 1 },
  { title: 'STATE', cell: row => row.state },
  { title: 'ERA', cell: row => row.era ?? NONE, spare: 2 },
  { title: 'FLIGHT', cell: row => count(row.in_flight), right: true },
  { title: 'QUEUE', cell: row => count(row.queue), right: true },
  { title: 'P50', cell: row => milliseconds(row.p50_ms), right: true, spare: 3 },
  { title: 'P95', cell: row => milliseconds(row.p95_ms), right: true },
  { title: 'RSS', cell: row => megabytes(row.rss_bytes), right: true },
  { title: 'RESTARTS', cell: restarts, right: true },
  { title: 'BREAKER', cell: row => row.breaker ?? NONE, spare: 5 },
  { title: 'UPTIME', cell: row => (row.uptime_s === null ? NONE : duration(row.uptime_s)), right: true },
  { title: 'LAST ERROR', cell: row => row.last_error ?? '', least: 12, spare: 4 },
];

interface Options extends CommonOptions {
  watch?: boolean;
  registry?: string;
}

/** `mesh status` */
export function statusCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .option('--watch', 'show it anew every 2 s, until Ctrl-C; needs a terminal')
    .registryOption('the registry file of the supervisor')
    .note(NOTE)
    .run(showStatus);
}

async function showStatus({ watch, json, registry }: Options): Promise<number> {
  const control = connectSupervisor(registry);
  if (watch) {
    if (json) throw new UsageError('--watch is for people and --json for programs: choose one');
    if (!process.stdout.isTTY) throw new UsageError('--watch needs a terminal; elsewhere, repeat --json');
    const stop = new AbortController();
    process.once('SIGINT', () => stop.abort());
    await watchStatus(control, process.stdout, stop.signal);
    return EXIT.ok;
  }
  const status = await control.status();
  answer(json, status, `${describeStatus(status, process.stdout.columns).join('\n')}\n`);
  return isComplete(status) ? EXIT.ok : EXIT.failed;
}

interface Screen {
  columns?: number;
  rows?: number;
  write(text: string): unknown;
}

/** Shows the state anew every `everyMs` until the signal; a supervisor that went away may come back. */
export async function watchStatus(
  control: Pick<ControlClient, 'status'>,
  screen: Screen,
  signal: AbortSignal,
  everyMs = WATCH_MS,
): Promise<void> {
  screen.write(CLEAR);
  while (!signal.aborted) {
    const lines = await control.status().then(
      status => describeStatus(status, screen.columns),
      (error: Error) => [cutTo(plain(error.message), screen.columns ?? Number.POSITIVE_INFINITY)],
    );
    const height = Math.max(2, (screen.rows ?? Number.POSITIVE_INFINITY) - 1);
    const shown = lines.length > height ? [...lines.slice(0, height - 1), '…'] : lines;
    if (signal.aborted) break;
    // What is there is written over and not cleared first, which would flicker.
    screen.write(`${HOME}${shown.map(line => `${line}${ERASE_LINE}\n`).join('')}${ERASE_BELOW}`);
    await delay(everyMs, undefined, { signal }).catch(() => {});
  }
}

/** Lines for people: faults first, then the table, then what the services lack. */
export function describeStatus(status: FleetStatus, width = Number.POSITIVE_INFINITY): string[] {
  const { registry, services, instances } = status;
  const rows = instances.toSorted(
    (a, b) => a.service.localeCompare(b.service) || a.slot.localeCompare(b.slot, 'en', { numeric: true }),
  );
  const fault =
    registry.error === null
      ? []
      : [
          '! the registry file has a fault; what it said before stays in force:',
          ...registry.error.split('\n').map(line => `    ${line}`),
          '',
        ];
  const table = rows.length === 0 ? ['no instances'] : formatTable(rows, COLUMNS, width);
  const notes = services
    .toSorted((a, b) => a.service.localeCompare(b.service))
    .flatMap(service => notesOf(service, rows));
  const ready = services.reduce((sum, one) => sum + one.ready, 0);
  const wanted = services.reduce((sum, one) => sum + one.wanted, 0);
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(status.started_at)) / 1000));
  const last = `${ready} of ${wanted} instances ready · supervisor ${status.pid}, up ${duration(seconds)} · ${registry.path}`;
  const around = (lines: string[]) => lines.map(line => cutTo(plain(line), width));
  return [...around(fault), ...table, '', ...around(notes), ...around([last])];
}

/** Whether every service has what it wants, and the registry file is in force as it is. */
export function isComplete({ registry, services }: FleetStatus): boolean {
  return registry.error === null && services.every(isServed);
}

/** Whether a service has all the instances that it wants, and can start the first one. */
export function isServed({ ready, wanted, activator }: ServiceRow): boolean {
  return ready >= wanted && (activator?.failure ?? null) === null;
}

/** What a service lacks, with the reason; empty when there is nothing to say. */
export function notesOf(
  { service, wanted, ready, activator, rollout }: ServiceRow,
  rows: readonly InstanceRow[],
): string[] {
  const own = rows.filter(row => row.service === service && row.state !== 'ready');
  const reasons = [
    ...new Set(own.map(row => `${row.state}: ${row.reason || row.last_error || 'no reason known'}`)),
  ];
  const notes: string[] = [];
  if (ready < wanted) {
    const why = reasons.length === 0 ? 'the others have not been started yet' : reasons.join('; ');
    notes.push(`! ${service}: ${ready} of ${wanted} instances ready; ${why}`);
  }
  if (rollout !== null) notes.push(`! ${service}: rolling restart: ${rollout}`);
  if (activator?.failure) notes.push(`! ${service}: the first call cannot start it: ${activator.failure}`);
  else if (activator && wanted === 0) {
    const held = activator.held > 0 ? `, which ${activator.held} calls wait for` : '';
    notes.push(`  ${service}: no instance; the first call starts one${held}`);
  }
  return notes;
}

function restarts({ restarts: ofWorker, server_restarts: ofServer }: InstanceRow): string {
  return ofServer === null ? String(ofWorker) : `${ofWorker}+${ofServer}`;
}

function count(value: number | null): string {
  return value === null ? NONE : String(value);
}

function milliseconds(value: number | null): string {
  if (value === null) return NONE;
  if (value >= 10_000) return `${Math.round(value / 1000)} s`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function megabytes(value: number | null): string {
  return value === null ? NONE : `${Math.round(value / MB)} MB`;
}

/** The two greatest units: 42s, 5m3s, 2h5m, 3d4h. */
function duration(seconds: number): string {
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [seconds % 60, 's'],
  ] as const;
  const first = parts.findIndex(([value]) => value > 0);
  if (first < 0) return '0s';
  return parts
    .slice(first, first + 2)
    .map(([value, unit]) => `${value}${unit}`)
    .join('');
}

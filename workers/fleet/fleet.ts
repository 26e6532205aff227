import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { type Logger, pino } from 'pino';
import { type Consul, type ConsulAddress, createConsul } from '../../mesh/consul.ts';
import { instanceCount, type Registry, type Service } from '../../mesh/registry.ts';
import { followRegistry, type RegistryWatch } from '../../mesh/registry-watch.ts';
import { workerSettings } from '../../mesh/settings.ts';
import { sweepOrphans } from '../child/orphans.ts';
import type { LogLevel } from '../log-level.ts';
import type { Target } from './control-client.ts';
import { type ControlServer, startControl } from './control-server.ts';
import { announceChange, withdraw } from './definitions.ts';
import { Elastic, type ScalingTimes } from './elastic.ts';
import { ServiceGroup, STARTS_AT_ONCE } from './group.ts';
import { type Member, Members, requireCount } from './members.ts';
import { markOf, meshIdOf, sweepFleet, WORKER_VARIABLE } from './orphans.ts';
import { Ports } from './ports.ts';
import type { Slot, SlotTimes, StopOptions } from './slot.ts';
import { StartGate } from './start-gate.ts';
import { describeInstance, describeService, type FleetStatus, memoryOf, slotName } from './status.ts';

export interface FleetOptions {
  /** The registry file; it is followed. */
  registryPath: string;
  /** Where the registry's `${VAR}` is read from. */
  env: Readonly<Record<string, string | undefined>>;
  /** Environment of a service's workers: their settings and keys. */
  environment(service: Service): Readonly<Record<string, string | undefined>>;
  /** undefined: nobody is told of the workers. */
  consul?: ConsulAddress | undefined;
  /** The worker's program; default: workers/main.ts. A bundle of it (bundle.ts) starts in half the time. */
  program?: string;
  /** Path of the control socket; undefined: none. */
  controlPath?: string | undefined;
  logLevel?: string;
  log?: Logger;
  /** Takes each line that a worker writes; default: to stderr. */
  print?(line: string): void;
  /** Milliseconds between two looks at the registry file. */
  pollMs?: number;
  times?: Partial<SlotTimes & ScalingTimes>;
}

const WORKER = fileURLToPath(new URL('../main.ts', import.meta.url));
const TICK_MS = 1000;
const WAIT_POLL_MS = 50;
/** An order that gets no further is no longer waited for: what it waits for is in the status. */
const STANDSTILL_MS = 30_000;
const TIMES: SlotTimes & ScalingTimes = {
  restartFirstMs: 500,
  sustainedMs: 60_000,
  parkedMs: 300_000,
  silentMs: 30_000,
  // The worker's own deadline for calls in flight (60 s) and the end of its server.
  stopMs: 80_000,
  upMs: 2000,
  downMs: 60_000,
  idleMs: 300_000,
  holdMs: 25_000,
};

/** Supervises the workers of one registry on this host. */
export class Fleet {
  readonly #options: FleetOptions;
  readonly #log: Logger;
  readonly #startedAt = new Date();
  readonly #mark: string;
  readonly #gate = new StartGate(STARTS_AT_ONCE);
  readonly #members = new Members();
  /** Of services that the registry no longer has. */
  readonly #leaving = new Set<ServiceGroup>();
  readonly #consul: Consul | undefined;
  readonly #times: SlotTimes & ScalingTimes;
  readonly #ticker: NodeJS.Timeout;
  #registry: RegistryWatch;
  #control: ControlServer | undefined;
  #sweeping: Promise<void> | undefined;
  #changedAt = Date.now();
  #stopped: Promise<void> | undefined;

  private constructor(options: FleetOptions, log: Logger, registry: RegistryWatch) {
    this.#options = options;
    this.#log = log;
    this.#registry = registry;
    this.#times = { ...TIMES, ...options.times };
    this.#mark = markOf(meshIdOf(options.registryPath));
    this.#consul = options.consul && createConsul(options.consul);
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
  }

  /**
   * Ends what a supervisor that was killed left behind, then starts all that the registry asks for. Resolves while the
   * workers still start.
   * @throws RegistryError when the registry cannot be used; Error when another supervisor runs for it
   */
  static async start(options: FleetOptions): Promise<Fleet> {
    const log = options.log ?? createLog(options.logLevel);
    let fleet: Fleet | undefined;
    const registry = followRegistry({
      path: options.registryPath,
      env: options.env,
      ...(options.pollMs === undefined ? {} : { pollMs: options.pollMs }),
      onReload: changed => fleet?.apply(changed),
      onError: error =>
        log.error(
          { err: error.message },
          'the registry file is not used as it is now: mend what the error says',
        ),
    });
    // Whoever holds the socket is the mesh's supervisor: before that, nothing is touched.
    const control = options.controlPath ? await startControl(options.controlPath).catch(close) : undefined;
    function close(error: unknown): never {
      registry.close();
      throw error;
    }
    await sweepFleet(meshIdOf(options.registryPath), log);
    fleet = new Fleet(options, log, registry);
    fleet.#control = control;
    fleet.apply(registry.registry);
    control?.serve(fleet);
    return fleet;
  }

  /** Brings the fleet in line with a registry: adds, removes, scales and restarts only what differs. */
  apply({ services }: Registry): void {
    if (this.#stopped) return;
    const names = new Set(services.map(({ name }) => name));
    for (const [name, member] of this.#members) if (!names.has(name)) void this.#remove(name, member);
    for (const service of services) {
      const member = this.#members.get(service.name);
      if (!member) this.#add(service);
      else if (!isDeepStrictEqual(member.group.service, service)) {
        announceChange(member.group.service, service, { consul: this.#consul, log: this.#log });
        member.group.apply(service);
      }
    }
  }

  status(): FleetStatus {
    const members = [...this.#members.values()];
    const groups = [...members.map(({ group }) => group), ...this.#leaving];
    const slots = groups.flatMap(group => group.slots);
    const memory = memoryOf(slots.flatMap(({ pid }) => (pid === undefined ? [] : [pid])));
    return {
      pid: process.pid,
      started_at: this.#startedAt.toISOString(),
      registry: { path: this.#options.registryPath, error: this.#registry.error?.message ?? null },
      services: members.map(({ group, elastic }) => describeService(group, elastic)),
      instances: groups.flatMap(({ name, slots: own }) =>
        own.map(slot => describeInstance(name, slot, memory)),
      ),
    };
  }

  /**
   * Has so many instances of a service, until the registry says something else; one that scales itself goes on from
   * there. Resolves when that is so, or gets no further. @throws FleetError
   */
  async scale(service: string, count: number): Promise<void> {
    const { group } = this.#members.find(service);
    requireCount(group.service, count);
    group.scale(count);
    await this.#settle(group);
  }

  /**
   * Restarts a service's instances one after the other, each when the one before passes; or one instance, by its id or
   * slot. Resolves when that is done, or gets no further. @throws FleetError
   */
  async restart(target: Target): Promise<void> {
    const { group, slot } = this.#members.findTarget(target);
    group.restart(slot);
    await this.#settle(group);
  }

  /** Lets an instance answer what it has and end; it comes back when it is restarted. @throws FleetError */
  async drain(instance: string): Promise<void> {
    const { group, slot } = this.#members.findInstance(instance);
    await group.drain(slot);
  }

  /** The last lines of a service's servers, or of one instance, by slot. @throws FleetError */
  async logs(target: Target): Promise<Record<string, string[]>> {
    return this.#ask(target, slot => slot.logs());
  }

  /**
   * Has workers log at a level until they end. Resolves with the level in force, by slot; null: no worker answers.
   * @throws FleetError
   */
  async setLogLevel(target: Target, level: LogLevel): Promise<Record<string, string | null>> {
    return this.#ask(target, async slot => (await slot.setLogLevel(level)) ?? null);
  }

  /**
   * Ends every worker; resolves when all have ended, and nothing of them is left. `idleMs: 0` when no gateway sends any
   * more: then nobody has to be waited for.
   */
  stop(options: StopOptions = {}): Promise<void> {
    this.#stopped ??= this.#stop(options);
    return this.#stopped;
  }

  async #ask<T>(target: Target, question: (slot: Slot) => Promise<T>): Promise<Record<string, T>> {
    const { group, slot } = this.#members.findTarget(target);
    const slots = slot ? [slot] : group.slots;
    const answers = slots.map(async one => [slotName(group.name, one), await question(one)] as const);
    return Object.fromEntries(await Promise.all(answers));
  }

  async #stop(options: StopOptions): Promise<void> {
    this.#registry.close();
    clearInterval(this.#ticker);
    const members = [...this.#members.values()];
    await Promise.all(members.map(({ elastic }) => elastic.close()));
    const groups = [...members.map(({ group }) => group), ...this.#leaving];
    await Promise.all(groups.map(group => group.stop(options)));
    await this.#sweeping;
    await sweepOrphans(this.#log);
    await this.#control?.close();
    this.#consul?.close();
  }

  #add(service: Service): void {
    const { environment, program = WORKER, print = toStderr } = this.#options;
    const consul = this.#consul;
    const log = this.#log;
    const times = this.#times;
    const settings = (of: Service) => workerSettings(environment(of));
    const ports = new Ports({ address: environment(service).MESH_ADVERTISE_ADDRESS });
    const group = new ServiceGroup(service, instanceCount(service), {
      program,
      environment: of => ({ ...environment(of), [WORKER_VARIABLE]: this.#mark }),
      gate: this.#gate,
      ports,
      consul,
      log,
      times,
      print,
      onChange: () => {
        this.#changedAt = Date.now();
      },
      onExit: () => this.#sweep(),
    });
    const elastic = new Elastic({ group, settings, consul, ports, log, times });
    this.#members.set(service.name, { group, elastic });
  }

  async #remove(name: string, { group, elastic }: Member): Promise<void> {
    const log = this.#log;
    log.info({ service: name }, 'the registry has a service no more: its instances are drained');
    this.#members.delete(name);
    this.#leaving.add(group);
    const gone = elastic.close().then(() => group.stop({}));
    await gone.finally(() => this.#leaving.delete(group));
    if (!this.#members.has(name)) await withdraw(group.service, { consul: this.#consul, log });
  }

  /** After a worker's end: of many at once, one sweep sees all. */
  #sweep(): void {
    this.#sweeping ??= sweepOrphans(this.#log)
      .catch(error => this.#log.warn({ err: error }, 'processes cannot be looked through for orphans'))
      .finally(() => {
        this.#sweeping = undefined;
      });
  }

  #tick(): void {
    for (const { group, elastic } of this.#members.values()) {
      for (const slot of group.slots) slot.tick(TICK_MS);
      elastic.tick();
    }
  }

  async #settle(group: ServiceGroup): Promise<void> {
    const { version } = group;
    const startedAt = Date.now();
    const isDone = () => group.settled && group.slots.every(hasSettled);
    const isStuck = () => Date.now() - Math.max(this.#changedAt, startedAt) > STANDSTILL_MS;
    while (!isDone() && !isStuck() && version === group.version) await delay(WAIT_POLL_MS);
  }
}

/** See `Fleet.start`. */
export function startFleet(options: FleetOptions): Promise<Fleet> {
  return Fleet.start(options);
}

function hasSettled({ state }: Slot): boolean {
  return state === 'ready' || state === 'parked' || state === 'drained';
}

function createLog(level = 'info'): Logger {
  return pino({ level, base: { part: 'fleet', pid: process.pid } }, pino.destination({ fd: 2, sync: true }));
}

function toStderr(line: string): void {
  process.stderr.write(`${line}\n`);
}

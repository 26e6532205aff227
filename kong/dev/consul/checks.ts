import type { Check, Service } from './catalog.ts';
import { type Runner, startCheck } from './check-runner.ts';
import type { CheckDefinition } from './definition.ts';
import { toMs } from './duration.ts';
import { Refusal } from './reply.ts';

/** Consul's check_update_interval. */
const OUTPUT_SYNC_MS = 300_000;

export type Status = Check['Status'];

export interface ReapTimes {
  /** Consul takes no shorter DeregisterCriticalServiceAfter. */
  minimumMs: number;
  intervalMs: number;
}

interface Options {
  node: string;
  reap: ReapTimes;
  /** Called when a check is to go into the catalogue. */
  sync(check: Check): void;
  removeService(id: string): void;
}

interface LocalCheck {
  check: Check;
  runner: Runner;
  reapAfterMs: number;
  /** Epoch ms. */
  criticalSince: number | undefined;
  /** Set while the catalogue has an older output. */
  deferredSync: NodeJS.Timeout | undefined;
}

/** The agent's checks: they run, change, expire and reap their services (Consul's agent/local/state.go). */
export class LocalChecks {
  readonly #options: Options;
  readonly #checks = new Map<string, LocalCheck>();
  readonly #reaper: NodeJS.Timeout;

  constructor(options: Options) {
    this.#options = options;
    this.#reaper = setInterval(() => this.#reap(), options.reap.intervalMs);
  }

  /** A check known by this id is replaced, but keeps its status and output, as in Consul. */
  add(service: Service, id: string, definition: CheckDefinition): void {
    const { TTL, HTTP, TCP, Interval, Timeout, DeregisterCriticalServiceAfter, ...shown } = definition;
    const before = this.#stop(id);
    const status = (before?.check.Status ?? definition.Status) || 'critical';
    this.#checks.set(id, {
      check: this.#show(service, {
        CheckID: id,
        Name: shown.Name || `Service '${service.Service}' check`,
        Status: status as Status,
        Notes: shown.Notes,
        Output: before?.check.Output ?? '',
        Type: HTTP !== '' ? 'http' : TCP !== '' ? 'tcp' : 'ttl',
      }),
      runner: startCheck(definition, (state, output) => this.#update(id, state, output)),
      reapAfterMs: Math.max(
        toMs(DeregisterCriticalServiceAfter) || Number.POSITIVE_INFINITY,
        this.#options.reap.minimumMs,
      ),
      criticalSince: status === 'critical' ? (before?.criticalSince ?? Date.now()) : undefined,
      deferredSync: undefined,
    });
  }

  addMaintenance(service: Service, id: string, notes: string): void {
    const words = { CheckID: id, Name: 'Service Maintenance Mode', Notes: notes, Output: '' };
    this.#checks.set(id, {
      check: this.#show(service, { ...words, Status: 'critical', Type: 'maintenance' }),
      runner: { stop() {} },
      reapAfterMs: Number.POSITIVE_INFINITY,
      criticalSince: undefined,
      deferredSync: undefined,
    });
  }

  has(id: string): boolean {
    return this.#checks.has(id);
  }

  all(): Check[] {
    return [...this.#checks.values()].map(({ check }) => check);
  }

  /** The checks of one service. */
  of(serviceId: string): Check[] {
    return this.all().filter(check => check.ServiceID === serviceId);
  }

  /** Those of a service that are not held back. */
  toSync(serviceId: string): Check[] {
    return this.of(serviceId).filter(({ CheckID }) => this.#checks.get(CheckID)?.deferredSync === undefined);
  }

  /** A heartbeat of a TTL check. Throws Refusal for any other id, in 1.8's words. */
  beat(id: string, status: Status, output: string): void {
    const runner = this.#checks.get(id)?.runner;
    if (runner?.beat === undefined) {
      throw new Refusal(500, `CheckID ${JSON.stringify(id)} does not have associated TTL`);
    }
    runner.beat(status, output);
  }

  remove(id: string): void {
    this.#stop(id);
    this.#checks.delete(id);
  }

  close(): void {
    clearInterval(this.#reaper);
    for (const id of this.#checks.keys()) this.#stop(id);
  }

  #show(
    service: Service,
    check: Omit<Check, 'Node' | 'ServiceID' | 'ServiceName' | 'ServiceTags' | 'Definition'>,
  ): Check {
    const { ID: ServiceID, Service: ServiceName, Tags: ServiceTags } = service;
    return { Node: this.#options.node, ...check, ServiceID, ServiceName, ServiceTags, Definition: {} };
  }

  #stop(id: string): LocalCheck | undefined {
    const local = this.#checks.get(id);
    local?.runner.stop();
    clearTimeout(local?.deferredSync);
    return local;
  }

  /** A change of the output alone waits for 2.5 to 5 min before the catalogue hears of it. */
  #update(id: string, status: Status, output: string): void {
    const local = this.#checks.get(id);
    if (local === undefined || (local.check.Status === status && local.check.Output === output)) return;
    const isOutputOnly = local.check.Status === status;
    local.check = { ...local.check, Status: status, Output: output };
    local.criticalSince = status === 'critical' ? (local.criticalSince ?? Date.now()) : undefined;
    const sync = () => {
      clearTimeout(local.deferredSync);
      local.deferredSync = undefined;
      this.#options.sync(local.check);
    };
    if (isOutputOnly) local.deferredSync ??= setTimeout(sync, (OUTPUT_SYNC_MS / 2) * (1 + Math.random()));
    else sync();
  }

  #reap(): void {
    for (const { check, criticalSince, reapAfterMs } of [...this.#checks.values()]) {
      if (criticalSince !== undefined && Date.now() - criticalSince > reapAfterMs) {
        this.#options.removeService(check.ServiceID);
      }
    }
  }
}

import type { Logger } from 'pino';
import type { Consul } from '../../mesh/consul.ts';
import { instanceId } from '../../mesh/names.ts';
import type { Service } from '../../mesh/registry.ts';
import type { WorkerSettings } from '../../mesh/settings.ts';
import { Activator, unavailable } from './activator.ts';
import type { ServiceGroup } from './group.ts';
import { Passing, until } from './passing.ts';
import type { Ports } from './ports.ts';
import { Scaler } from './scaler.ts';

/** Times, in milliseconds, that tests make shorter. */
export interface ScalingTimes {
  /** More instances when they were needed for so long. */
  upMs: number;
  /** One less when it was not needed for so long. */
  downMs: number;
  /** With `min: 0`, none when nobody called for so long. */
  idleMs: number;
  /** Longest time that an activator holds a call. */
  holdMs: number;
}

interface ElasticOptions {
  group: ServiceGroup;
  /** Of the service's workers. */
  settings(service: Service): WorkerSettings;
  consul: Consul | undefined;
  ports: Ports;
  log: Logger;
  times: ScalingTimes;
}

interface Post {
  service: Service;
  /** undefined: it could not listen. */
  started: Promise<Activator | undefined>;
  activator: Activator | undefined;
}

const HELD_MAX = 256;
const WAKE_POLL_MS = 20;
/** For an activator to pass, before the last instance goes. */
const OFFER_MS = 10_000;

/** What keeps a service with `instances: { min, max }` at the size that its calls need, down to none with `min: 0`. */
export class Elastic {
  readonly #options: ElasticOptions;
  #scaler: { range: unknown; scaler: Scaler } | undefined;
  #post: Post | undefined;
  #passing: Passing | undefined;
  #awakeSince = Date.now();
  #resting = false;
  #failure: string | undefined;
  #closed = false;

  constructor(options: ElasticOptions) {
    this.#options = options;
    this.tick();
  }

  /** `offered`: it takes the service's calls. */
  get activator(): { offered: boolean; held: number; failure: string | undefined } {
    const activator = this.#post?.activator;
    return { offered: activator?.offered ?? false, held: activator?.held ?? 0, failure: this.#failure };
  }

  /** Looks at the load, once a second. */
  tick(now = Date.now()): void {
    if (this.#closed) return;
    this.#scale(now);
    this.#tend();
    const activator = this.#post?.activator;
    if (!activator) return;
    const { group } = this.#options;
    if (this.#hasPassing()) {
      if (!this.#resting) void activator.withdraw();
    } else if (group.ready().length === 0) activator.offer();
    if (group.count > 0 && this.#isIdle(now)) void this.#rest(activator);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#passing?.close();
    const activator = await this.#post?.started;
    await activator?.close();
  }

  #scale(now: number): void {
    const { group, times } = this.#options;
    const { instances } = group.service;
    if (typeof instances === 'number') {
      this.#scaler = undefined;
      return;
    }
    if (this.#scaler?.range !== instances) {
      const { min, max, target_in_flight: target } = instances;
      this.#scaler = { range: instances, scaler: new Scaler({ min, max, target, ...times }) };
    }
    const calls = group.slots.reduce(
      (sum, { load }) => sum + (load ? load.inFlight + load.queue : 0),
      this.#post?.activator?.held ?? 0,
    );
    const count = this.#scaler.scaler.next({ now, calls, current: group.count });
    if (count === group.count) return;
    this.#options.log.info({ service: group.name, from: group.count, to: count, calls }, 'service is scaled');
    group.scale(count);
  }

  /** Has an activator listen where one may be needed, and none where not. */
  #tend(): void {
    const { group, consul } = this.#options;
    const { service } = group;
    const wanted = typeof service.instances !== 'number' && service.instances.min === 0;
    if (!consul) {
      // Nobody would find it.
      if (wanted && group.count === 0) group.scale(1);
      return;
    }
    const before = this.#post;
    if (wanted ? before?.service === service : !before) return;
    this.#passing?.close();
    this.#passing = wanted ? new Passing(consul, service.service_name) : undefined;
    const post = wanted ? { service, started: this.#start(consul), activator: undefined } : undefined;
    this.#post = post;
    void this.#relieve(before, post);
  }

  /** Where the definition has changed, the activator before stays until the next one has taken its place. */
  async #relieve(before: Post | undefined, post: Post | undefined): Promise<void> {
    const activator = await post?.started;
    if (post) post.activator = activator;
    // It could not listen: again at the next look.
    if (post && !activator && this.#post === post) this.#post = undefined;
    this.tick();
    const previous = await before?.started;
    if (!previous) return;
    if (previous.offered && activator?.offered) await this.#standsIn(activator);
    await previous.close();
    this.#options.ports.giveBack(previous.port);
  }

  async #start(consul: Consul): Promise<Activator | undefined> {
    const { group, settings, log, times } = this.#options;
    const { service } = group;
    try {
      const activator = await Activator.start({
        service,
        settings: settings(service),
        consul,
        log,
        port: await this.#sparePort(service),
        holdMs: times.holdMs,
        heldMax: HELD_MAX,
        wake: signal => this.#wake(signal),
      });
      this.#failure = undefined;
      return activator;
    } catch (error) {
      const { message } = error as Error;
      if (this.#failure !== message)
        log.error(
          { service: service.name, err: error },
          'service has no activator: its first call will fail',
        );
      this.#failure = message;
      return undefined;
    }
  }

  /** In the range, where that has room beside the instances; else any. */
  async #sparePort({ port_range: range, instances }: Service): Promise<number> {
    if (!range || typeof instances === 'number' || range[0] + instances.max > range[1]) return 0;
    return this.#options.ports.take(range[1], [range[0] + instances.max, range[1]]).catch(() => 0);
  }

  async #wake(signal: AbortSignal): Promise<{ address: string; port: number }> {
    const { group } = this.#options;
    if (group.count === 0) {
      this.#awakeSince = Date.now();
      this.#options.log.info({ service: group.name }, 'a call came: an instance is started');
      group.scale(1);
    }
    const isParked = () => group.slots.length > 0 && group.slots.every(({ state }) => state === 'parked');
    await until(
      () => group.ready().length > 0,
      () => signal.aborted || isParked() || this.#closed,
      WAKE_POLL_MS,
    );
    const place = group.ready()[0]?.place;
    if (place) return place;
    // The caller is told no more than a worker would tell.
    throw unavailable(isParked() ? 'its instance cannot start' : 'its instance is still starting');
  }

  /** The last instance goes when the activator has taken its place. */
  async #rest(activator: Activator): Promise<void> {
    if (this.#resting) return;
    this.#resting = true;
    try {
      const { group, log } = this.#options;
      activator.offer();
      if (!(await this.#standsIn(activator)) || !this.#isIdle(Date.now())) return;
      log.info({ service: group.name }, 'nobody calls: the last instance is ended');
      group.scale(0);
    } finally {
      this.#resting = false;
    }
  }

  /** Waits until gateways see the activator. */
  #standsIn(activator: Activator): Promise<boolean> {
    const { group, settings } = this.#options;
    const id = instanceId(group.name, settings(group.service).host, activator.port);
    const deadline = Date.now() + OFFER_MS;
    const isVain = () => Date.now() > deadline || this.#closed;
    return until(() => this.#passing?.has(id, 0) ?? false, isVain);
  }

  #hasPassing(): boolean {
    return this.#options.group
      .ready()
      .some(({ place, startedAt }) => place && this.#passing?.has(place.instance, startedAt));
  }

  #isIdle(now: number): boolean {
    const { group, times } = this.#options;
    const activator = this.#post?.activator;
    if (!activator || activator.held > 0) return false;
    if (now - Math.max(activator.calledAt, this.#awakeSince) < times.idleMs) return false;
    return group.slots.every(({ load }) => load === undefined || load.idleMs >= times.idleMs);
  }
}

import { availableParallelism } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import { instanceCount, type Service } from '../../mesh/registry.ts';
import { Passing, until } from './passing.ts';
import { Slot, type SlotOptions, type StopOptions } from './slot.ts';

export type GroupOptions = Omit<SlotOptions, 'index'>;

/** CPUs are what starting takes: more at once than this only makes each of them later. */
export const STARTS_AT_ONCE = availableParallelism() * 2;
/** How long gateways may take to ask an instance that passes for its proof. */
const SETTLE_MS = 300;

/**
 * The slots of one service, and what there is to be of them: how many, and with which definition. Whatever is asked for
 * only changes that; one loop brings the slots there, and starts over when it changes meanwhile.
 */
export class ServiceGroup {
  readonly name: string;
  readonly #options: GroupOptions;
  #service: Service;
  #count: number;
  /** Slots with an older one run something else than what is in force. */
  #generation = 1;
  #slots: Slot[] = [];
  /** On their way out: they still serve, and hold their ports. */
  readonly #leaving = new Set<Slot>();
  #version = 0;
  #running: Promise<void> | undefined;
  #rollout: string | undefined;
  #stopped = false;

  constructor(service: Service, count: number, options: GroupOptions) {
    this.name = service.name;
    this.#service = service;
    this.#count = count;
    this.#options = options;
    this.#kick();
  }

  get service(): Service {
    return this.#service;
  }

  get count(): number {
    return this.#count;
  }

  /** Those that are to stay, then those on their way out. */
  get slots(): readonly Slot[] {
    return [...this.#slots, ...this.#leaving];
  }

  /** What a rolling restart waits for. */
  get rollout(): string | undefined {
    return this.#rollout;
  }

  /** Nothing is left to do. */
  get settled(): boolean {
    return this.#running === undefined && this.#leaving.size === 0;
  }

  /** Changes with what is asked for; the same number: nobody asked for anything else since. */
  get version(): number {
    return this.#version;
  }

  /** Ready to take calls, the least busy first. */
  ready(): Slot[] {
    const calls = ({ load }: Slot) => (load ? load.inFlight + load.queue : 0);
    return this.#slots.filter(({ state }) => state === 'ready').toSorted((a, b) => calls(a) - calls(b));
  }

  /**
   * Puts another definition in force. Where only the number of instances differs, none is restarted; else all are, one
   * after the other: also for what acts through Consul alone (`load_balancer`, `weight`, `tags`), since each worker
   * publishes its definition when it starts, and keeps Consul in line with it from then on.
   */
  apply(service: Service): void {
    const before = this.#service;
    this.#service = service;
    if (!isDeepStrictEqual({ ...before, instances: 0 }, { ...service, instances: 0 })) this.#generation += 1;
    if (!isDeepStrictEqual(before.instances, service.instances))
      this.#count = clampCount(service, this.#count);
    this.#kick();
  }

  scale(count: number): void {
    if (count === this.#count) return;
    this.#count = count;
    this.#kick();
  }

  /** All slots one after the other, drained ones included; or this one. */
  restart(slot?: Slot): void {
    for (const one of slot ? [slot] : this.#slots) {
      one.withheld = false;
      one.generation = 0;
    }
    this.#kick();
  }

  /** Ends its worker and starts none, until it is restarted. */
  async drain(slot: Slot): Promise<void> {
    slot.withheld = true;
    await slot.stop();
  }

  /** Ends everything. */
  async stop(options: StopOptions): Promise<void> {
    this.#stopped = true;
    this.#version += 1;
    await Promise.all(this.slots.map(slot => slot.stop(options)));
    await this.#running;
    await Promise.all(this.slots.map(slot => slot.stop(options)));
  }

  #kick(): void {
    this.#version += 1;
    this.#running ??= this.#converge().finally(() => {
      this.#running = undefined;
      this.#rollout = undefined;
    });
  }

  async #converge(): Promise<void> {
    let version: number;
    do {
      // What comes in one turn is seen at once.
      await Promise.resolve();
      version = this.#version;
      if (this.#stopped) return;
      this.#shrink();
      this.#grow();
      await this.#roll(version);
    } while (version !== this.#version);
  }

  /** Lets go of the least useful ones: what does not run, then what does least. */
  #shrink(): void {
    const busy = ({ state, load }: Slot) =>
      state === 'ready' ? 1 + (load ? load.inFlight + load.queue : 0) : Number(state !== 'drained') / 2;
    const byUse = this.#slots.toSorted((a, b) => busy(a) - busy(b) || b.index - a.index);
    for (const slot of byUse.slice(0, Math.max(0, this.#slots.length - this.#count))) {
      this.#slots = this.#slots.filter(other => other !== slot);
      this.#dismiss(slot);
    }
  }

  #grow(): void {
    while (this.#slots.length < this.#count) {
      const slot = this.#createSlot();
      this.#slots.push(slot);
      slot.start(this.#service, this.#generation);
    }
    this.#slots.sort((a, b) => a.index - b.index);
  }

  /** Restarts what runs an older definition; a broken one stops at the first instance. */
  async #roll(version: number): Promise<void> {
    const isStale = ({ generation, withheld }: Slot) => generation !== this.#generation && !withheld;
    if (!this.#slots.some(isStale)) return;
    const isVain = () => version !== this.#version;
    // These lose nothing: nobody is served there.
    const idle = this.#slots.filter(slot => isStale(slot) && slot.state !== 'ready');
    await Promise.all(idle.map(slot => this.#startAnew(slot)));
    const passing = new Passing(this.#options.consul, this.#service.service_name);
    try {
      for (;;) {
        if (!(await until(() => this.#currentPass(passing), isVain))) return;
        const next = this.#slots.find(isStale);
        if (!next || isVain()) return;
        await this.#replace(next, passing, isVain);
      }
    } finally {
      passing.close();
    }
  }

  /** Restarts an instance; the only one has a deputy meanwhile. */
  async #replace(slot: Slot, passing: Passing, isVain: () => boolean): Promise<void> {
    const alone = slot.state === 'ready' && this.ready().length === 1;
    if (alone && !this.#hasRoom()) this.#options.log.warn({ service: this.name }, NO_DEPUTY);
    if (!alone || !this.#hasRoom()) return this.#startAnew(slot);
    const deputy = this.#createSlot();
    this.#leaving.add(deputy);
    deputy.start(this.#service, this.#generation);
    try {
      const stands = () => {
        this.#rollout = `waits for the deputy ${this.name}#${deputy.index}: ${deputy.reason}`;
        return this.#passes(deputy, passing);
      };
      if (!(await until(stands, isVain))) return;
      await this.#startAnew(slot);
      await until(() => this.#passes(slot, passing), isVain);
    } finally {
      this.#dismiss(deputy);
    }
  }

  /** Whether there is a port for one more instance. */
  #hasRoom(): boolean {
    const range = this.#service.port_range;
    return range === undefined || range[1] - range[0] + 1 > this.slots.length;
  }

  async #startAnew(slot: Slot): Promise<void> {
    await slot.stop();
    if (!this.#stopped && !slot.withheld && this.#slots.includes(slot))
      slot.start(this.#service, this.#generation);
  }

  /** Whether all that run the definition in force pass, but for what an operator drained. */
  #currentPass(passing: Passing): boolean {
    const lagging = this.#slots.find(
      slot => slot.generation === this.#generation && !slot.withheld && !this.#passes(slot, passing),
    );
    this.#rollout =
      lagging && `waits for ${this.name}#${lagging.index}: ${lagging.reason || 'not passing yet'}`;
    return lagging === undefined;
  }

  #passes(slot: Slot, passing: Passing): boolean {
    const { place, startedAt } = slot;
    return (
      slot.state === 'ready' &&
      place !== undefined &&
      passing.has(place.instance, startedAt) &&
      Date.now() - slot.readyAt >= SETTLE_MS
    );
  }

  #dismiss(slot: Slot): void {
    this.#leaving.add(slot);
    void slot.stop().then(() => {
      slot.close();
      this.#leaving.delete(slot);
      this.#options.onChange();
    });
  }

  #createSlot(): Slot {
    const taken = new Set(this.slots.map(({ index }) => index));
    let index = 0;
    while (taken.has(index)) index += 1;
    return new Slot({ ...this.#options, index });
  }
}

const NO_DEPUTY =
  'the only instance is restarted without a deputy, calls fail meanwhile: give port_range room for one more';

/** What is to be of a number of instances when the registry changes. */
function clampCount(service: Service, count: number): number {
  const { instances } = service;
  if (typeof instances === 'number') return instances;
  return Math.min(instances.max, Math.max(instanceCount(service), count));
}

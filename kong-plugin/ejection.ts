import type { BreakerState } from '../mesh/breaker.ts';
import type { Instance } from '../mesh/consul.ts';
import { Suspect } from './suspect.ts';

interface EjectionOptions {
  /** Called when an instance is ejected, is to be tried again, or comes back. */
  onChange?: (instance: string, state: BreakerState, reason: string) => void;
}

interface Probe {
  instance: string;
  settle(failure: string | undefined): void;
}

/**
 * Takes instances out that fail call after call, and those that say that their own breaker is open. Fed from the log
 * phase, try by try.
 */
export class Ejection {
  readonly #options: EjectionOptions;
  #known = new Map<string, Instance>();
  /** Instances that failed: most never do, so most have no breaker. */
  readonly #suspects = new Map<string, Suspect>();
  readonly #probes = new Map<string, Probe>();
  readonly #admitted = new WeakMap<readonly Instance[], { generation: number; left: readonly Instance[] }>();
  /** Changes with the set of ejected instances. */
  #generation = 0;

  constructor(options: EjectionOptions = {}) {
    this.#options = options;
  }

  /**
   * The instances without the ejected ones; all of them when more than half, or the last one, would go: then it is
   * likely not they that are broken, and somebody has to take the calls. The same array while nothing changes.
   */
  admit(instances: readonly Instance[]): readonly Instance[] {
    if (this.#suspects.size === 0) return instances;
    const before = this.#admitted.get(instances);
    if (before?.generation === this.#generation) return before.left;
    const healthy = instances.filter(({ id }) => this.state(id).state === 'closed');
    const panic = healthy.length === 0 || healthy.length < instances.length / 2;
    const left = panic || healthy.length === instances.length ? instances : healthy;
    this.#admitted.set(instances, { generation: this.#generation, left });
    return left;
  }

  /**
   * An instance whose time to be tried again has come, if there is one: this call has to go there first, and `learn`
   * or `release` says how it went. After `deadlineMs` it has failed. Nobody else gets the same one meanwhile.
   */
  probe(instances: readonly Instance[], lease: string, deadlineMs: number): Instance | undefined {
    if (this.#suspects.size === 0) return undefined;
    const instance = instances.find(({ id }) => this.#suspects.get(id)?.awaitsProbe);
    const settle = instance && this.#suspects.get(instance.id)?.startProbe(deadlineMs);
    if (instance && settle) this.#probes.set(lease, { instance: instance.id, settle });
    return instance;
  }

  /** How a try at an instance ended; `failure` says in words what went wrong, undefined: it answered. */
  learn(lease: string, instance: string, failure: string | undefined): void {
    const probe = this.#probes.get(lease);
    if (probe?.instance === instance) {
      probe.settle(failure);
      this.#probes.delete(lease);
      return;
    }
    if (failure === undefined) this.#suspects.get(instance)?.learn(undefined);
    else this.#suspectOf(instance).learn(failure);
  }

  /** The call is over: a probe that told nothing has failed. */
  release(lease: string): void {
    this.#probes.get(lease)?.settle('the call ended without an answer');
    this.#probes.delete(lease);
  }

  /** The instance answered that its own breaker is open: as many failures as it takes. */
  trip(lease: string, instance: string, reason: string): void {
    if (this.#probes.get(lease)?.instance === instance) this.learn(lease, instance, reason);
    else this.#suspectOf(instance).trip(reason);
  }

  /** `reason` in words; '' when closed. */
  state(instance: string): { state: BreakerState; reason: string } {
    const suspect = this.#suspects.get(instance);
    return { state: suspect?.state ?? 'closed', reason: suspect?.reason ?? '' };
  }

  /** Forgets all other instances, and what was held against a run that another one has replaced. */
  retain(instances: readonly Instance[]): void {
    this.#known = new Map(instances.map(instance => [instance.id, instance]));
    for (const [id, suspect] of this.#suspects) {
      if (this.#known.get(id)?.meta.started_at === suspect.startedAt && this.#known.has(id)) continue;
      suspect.close();
      this.#suspects.delete(id);
      this.#generation += 1;
    }
  }

  close(): void {
    this.retain([]);
  }

  #suspectOf(instance: string): Suspect {
    const before = this.#suspects.get(instance);
    if (before) return before;
    const suspect = new Suspect(this.#known.get(instance), (state, reason) => {
      this.#generation += 1;
      this.#options.onChange?.(instance, state, reason);
    });
    this.#suspects.set(instance, suspect);
    return suspect;
  }
}

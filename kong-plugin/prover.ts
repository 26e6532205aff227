import type { Instance } from '../mesh/consul.ts';
import { deriveServiceKey } from '../mesh/keys.ts';
import { consulName, SERVICE_NAME_PATTERN } from '../mesh/names.ts';
import { type ProofFault, requestProof } from '../mesh/proof-request.ts';
import type { MeshTls } from '../mesh/tls.ts';

export interface Prover {
  /**
   * All instances there are, whenever Consul's table changed. What is new is asked at once, what left is forgotten;
   * how they stand now is known when this returns, what changes later is told by `onChange`.
   */
  update(instances: readonly Instance[]): void;
  /** Whether it may get calls. */
  isProven(instance: Instance): boolean;
  /** Why it may not, for callers and operators; '' when it may. */
  reason(instance: Instance): string;
  /** Resolves when each instance has been asked once, or after `ms`: the first calls after a start have to wait. */
  ready(ms: number): Promise<void>;
  close(): void;
}

interface ProverOptions {
  /** MESH_ROOT_KEYS, newest first; a proof by a key of any of them is good. None: nobody has to prove anything. */
  rootKeys: readonly Buffer[];
  /** Called when an instance has become proven, or is no longer, other than by `update`. */
  onChange(): void;
  log(text: string): void;
  /** Consul's name of a service; default: the one that a service has which does not choose its own. */
  consulService?: (service: string) => string;
  /** undefined: plain HTTP. */
  tls?: MeshTls | undefined;
  /** Of one attempt. */
  fetchTimeoutMs?: number;
  /** Wait after a first failed attempt; doubles up to 30 s. */
  retryMs?: number;
  /** A proof is asked for again after this long at the latest. */
  reproveMs?: number;
  /** How much longer a proven instance that is busy, or away, keeps its place. */
  graceMs?: number;
}

/** An instance at one place, since one start: with another of these it is another one, unproven. */
interface Entry {
  instance: Instance;
  proven: boolean;
  /** By performance.now(). */
  provenAt: number;
  /** What was wrong with the last proof. */
  fault: string;
  /** What no proof can mend: nothing is asked. */
  misplaced: string | undefined;
  asked: boolean;
  failures: number;
  timer: NodeJS.Timeout | undefined;
  /** While it is asked. */
  asking: AbortController | undefined;
}

const CONCURRENCY = 16;
const FETCH_TIMEOUT_MS = 2000;
const REPROVE_MS = 300_000;
const RETRY_MS = 500;
const RETRY_MAX_MS = 30_000;
const GRACE_MS = 30_000;
const JITTER = 0.2;

const TRUST_ALL: Prover = {
  update() {},
  isProven: () => true,
  reason: () => '',
  ready: async () => {},
  close() {},
};

/**
 * Lets calls go only to instances that hold their service's key: an entry that somebody merely wrote into Consul gets
 * none. The key is that of the service whose calls the instance would get (`mcp_server` in its meta).
 */
export function createProver(options: ProverOptions): Prover {
  return options.rootKeys.length === 0 ? TRUST_ALL : new KeyProver(options);
}

class KeyProver implements Prover {
  readonly #options: ProverOptions;
  #entries = new Map<string, Entry>();
  /** For each request's look at each candidate. */
  readonly #byInstance = new WeakMap<Instance, Entry>();
  /** To be asked, in their order. What is new goes first: a crowd of dead entries must not hold it up. */
  readonly #fresh = new Set<Entry>();
  readonly #later = new Set<Entry>();
  #underWay = 0;
  readonly #waiting = new Set<() => void>();
  #complete = false;

  constructor(options: ProverOptions) {
    this.#options = options;
  }

  update(instances: readonly Instance[]): void {
    const before = this.#entries;
    this.#entries = new Map();
    for (const instance of instances) {
      const key = keyOf(instance);
      const entry = this.#entries.get(key) ?? before.get(key) ?? newEntry(instance);
      this.#entries.set(key, entry);
      this.#byInstance.set(instance, entry);
      this.#accept(entry, instance);
    }
    for (const [key, entry] of before) if (!this.#entries.has(key)) this.#dismiss(entry);
    this.#pump();
    this.#announce();
  }

  isProven(instance: Instance): boolean {
    return this.#find(instance)?.proven ?? false;
  }

  reason(instance: Instance): string {
    const entry = this.#find(instance);
    if (entry?.proven) return '';
    return sentence(entry?.misplaced ?? (entry?.fault || 'it has not been asked yet'));
  }

  async ready(ms: number): Promise<void> {
    // Every request asks: only the first ones after a start have anything to wait for.
    if (!this.#complete && this.#isOpen()) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, ms);
        this.#waiting.add(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    this.#complete = true;
  }

  close(): void {
    this.update([]);
  }

  #find(instance: Instance): Entry | undefined {
    return this.#byInstance.get(instance) ?? this.#entries.get(keyOf(instance));
  }

  #accept(entry: Entry, instance: Instance): void {
    const isBack = instance.status === 'passing' && entry.instance.status !== 'passing';
    entry.instance = instance;
    entry.misplaced = findMisplacement(instance, this.#options.consulService ?? consulName);
    if (entry.misplaced !== undefined) this.#dismiss(entry);
    else if (entry.asking) return;
    else if (!entry.asked) this.#fresh.add(entry);
    // News of it: one that failed need not wait for its next attempt, and one that was away may be another by now.
    else if (isBack) this.#later.add(entry);
  }

  #dismiss(entry: Entry): void {
    clearTimeout(entry.timer);
    this.#fresh.delete(entry);
    this.#later.delete(entry);
    entry.asking?.abort();
    Object.assign(entry, { asking: undefined, asked: false, proven: false });
  }

  #pump(): void {
    while (this.#underWay < CONCURRENCY) {
      const [entry = this.#later.values().next().value] = this.#fresh;
      if (!entry) return;
      this.#fresh.delete(entry);
      this.#later.delete(entry);
      this.#underWay += 1;
      this.#ask(entry)
        .catch(error => this.#options.log(`a proof could not be asked for: ${String(error)}`))
        .finally(() => {
          this.#underWay -= 1;
          this.#pump();
        });
    }
  }

  async #ask(entry: Entry): Promise<void> {
    clearTimeout(entry.timer);
    const asking = new AbortController();
    entry.asking = asking;
    const { id, address, port, meta } = entry.instance;
    const service = meta.mcp_server ?? '';
    const keys = this.#options.rootKeys.map(rootKey => deriveServiceKey(rootKey, service));
    const { fetchTimeoutMs: timeoutMs = FETCH_TIMEOUT_MS, tls } = this.#options;
    const fault = await requestProof(
      { service, id, address, port },
      { keys, timeoutMs, signal: asking.signal, tls },
    );
    if (entry.asking !== asking) return;
    entry.asking = undefined;
    this.#settle(entry, fault);
  }

  #settle(entry: Entry, fault: ProofFault | undefined): void {
    const { proven, fault: before } = entry;
    const { retryMs = RETRY_MS, reproveMs = REPROVE_MS, graceMs = GRACE_MS, onChange } = this.#options;
    const now = performance.now();
    entry.asked = true;
    if (!fault) {
      Object.assign(entry, { proven: true, provenAt: now, failures: 0, fault: '' });
      this.#schedule(entry, reproveMs);
    } else {
      // What else answers at its place gets nothing from now on. One that is slow is not given up at once: under load
      // that would send its calls to the others, which then are slow in turn.
      const spared = proven && !fault.answered && now < entry.provenAt + reproveMs + graceMs;
      this.#schedule(entry, Math.min(RETRY_MAX_MS, retryMs * 2 ** Math.min(entry.failures, 10)));
      Object.assign(entry, { proven: spared, failures: entry.failures + 1, fault: fault.reason });
    }
    if (entry.fault !== before || entry.proven !== proven) this.#tell(entry, before);
    if (entry.proven !== proven) onChange();
    this.#announce();
  }

  /** Jitter: gateways that started together, or a host's workers, do not come in step. */
  #schedule(entry: Entry, ms: number): void {
    const again = () => {
      this.#later.add(entry);
      this.#pump();
    };
    entry.timer = setTimeout(again, ms * (1 - JITTER * Math.random())).unref();
  }

  #tell({ instance, fault, proven }: Entry, before: string): void {
    // Quoted: whoever writes into Consul chooses the id, line feeds included.
    const id = JSON.stringify(instance.id);
    if (!proven) this.#options.log(`${id} gets no calls: it ${sentence(fault)}`);
    else if (fault !== '') this.#options.log(`${id} does not prove itself again for now: ${fault}`);
    else if (before !== '') this.#options.log(`${id} has proven itself`);
  }

  #isOpen(): boolean {
    return [...this.#entries.values()].some(({ asked, misplaced }) => !asked && misplaced === undefined);
  }

  #announce(): void {
    if (this.#waiting.size === 0 || this.#isOpen()) return;
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

function newEntry(instance: Instance): Entry {
  return {
    instance,
    proven: false,
    provenAt: 0,
    fault: '',
    misplaced: undefined,
    asked: false,
    failures: 0,
    timer: undefined,
    asking: undefined,
  };
}

function keyOf({ service, id, address, port, meta }: Instance): string {
  return JSON.stringify([service, id, address, port, meta.mcp_server, meta.started_at]);
}

/** Calls go by the meta, which anybody may write: an instance of one service must not stand in for another. */
function findMisplacement(
  { service, meta }: Instance,
  consulService: (service: string) => string,
): string | undefined {
  const name = meta.mcp_server;
  if (name === undefined || !SERVICE_NAME_PATTERN.test(name)) return 'its meta mcp_server names no service';
  if (consulService(name) === service) return undefined;
  return `its meta mcp_server is "${name}", which is not the Consul service that it is in`;
}

function sentence(fault: string): string {
  return `has not proven that it belongs to this mesh: ${fault}`;
}

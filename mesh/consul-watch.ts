import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Instance, Watch } from './consul.ts';
import { ConsulError, explain, type Link, type WatchMethod } from './consul-link.ts';

/** Short enough that a connection which died without a word is noticed within 33 s. */
const WAIT = '30s';
const BACKOFF_MS = { first: 250, max: 5000 };
/** Consul asks for a limited rate: a busy catalogue answers every blocking query at once. */
const REQUEST_INTERVAL_MS = 100;
/** How Consul begins the output of a TTL check that nobody updated in time. */
const TTL_EXPIRED = 'TTL expired';
/** Entries of an answer that are read in one turn of the event loop: about 2 ms, where 1,000 take 10. */
const SLICE = 200;
/** What `reasonOf` makes of a check without words. */
const UNSAID = /^\S+ is (warning|critical)$/;
const STATUSES = ['passing', 'warning', 'critical', 'maintenance'] as const;

export interface Followed<T> {
  /** For messages: the path below /v1. */
  what: string;
  fetch: WatchMethod;
  /** Reads an answer's body, with what the one before said; throws on one that is not Consul's. */
  read(body: unknown, before: T | undefined): T | Promise<T>;
  onChange(value: T): void;
  onError(error: Error): void;
}

/**
 * Follows one blocking query until closed. `onChange` gets the first answer, every one with other data, and
 * the first after an error, changed or not. An error goes to `onError` and the query starts anew after a
 * backoff of up to 5 s.
 */
export function follow<T>(link: Link, { what, fetch, read, onChange, onError }: Followed<T>): Watch {
  const closing = new AbortController();
  let current: { end(): void } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let last: { value: T } | undefined;
  let before: T | undefined;
  let failures = 0;
  let answeredAt = 0;
  let nextRequest = 0;

  const method: WatchMethod = async options => {
    await pause(Math.max(0, nextRequest - performance.now()), undefined, { signal: closing.signal });
    nextRequest = performance.now() + REQUEST_INTERVAL_MS;
    const answer = await fetch(options);
    await accept(answer[0].headers['x-consul-index'], answer[1]);
    return answer;
  };

  /**
   * By data, not by the package's 'change', which goes by the index: Consul's index moves without a change
   * (an unknown service has the whole catalogue's) and stays over one (KV prefix deleted by a shorter one).
   */
  async function accept(index: string | string[] | undefined, body: unknown): Promise<void> {
    // Without it an answer is not Consul's: a proxy's 404 would read as an empty KV store.
    if (index === undefined)
      throw new ConsulError(`${what}: no X-Consul-Index in the answer of ${link.url.host}`);
    const value = await read(body, before);
    if (closing.signal.aborted) return;
    before = value;
    answeredAt = Date.now();
    failures = 0;
    if (last !== undefined && isDeepStrictEqual(last.value, value)) return;
    last = { value };
    onChange(value);
  }

  function start(): void {
    // No second attempt of its own: it would ask a restarted Consul for an index that this may not reach
    // for hours, ends for ever on a 400, and all gateways would come back in step.
    const watch = link.client.watch({ method, options: { wait: WAIT }, maxAttempts: 0 });
    current = watch;
    watch.on('error', (error: unknown) => {
      if (closing.signal.aborted) return;
      last = undefined;
      const limit = Math.min(BACKOFF_MS.max, BACKOFF_MS.first * 2 ** Math.min(failures++, 10));
      timer = setTimeout(start, limit * (0.5 + Math.random() / 2));
      onError(explain(link, `cannot watch ${what}`, error));
    });
  }

  const handle: Watch = {
    answeredAt: () => answeredAt,
    close() {
      closing.abort();
      clearTimeout(timer);
      current?.end();
      link.watches.delete(handle);
    },
  };
  if (link.closed) throw new ConsulError(`cannot watch ${what}: this client of ${link.url.host} was closed`);
  link.watches.add(handle);
  start();
  return handle;
}

/** Reads GET /v1/catalog/services: service name → tags, sorted, as Consul mixes them anew in each answer. */
export function readServices(body: unknown): Map<string, string[]> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw notConsul('an object', body);
  return new Map(
    Object.entries(body as Record<string, string[]>).map(([name, tags]) => [name, tags.toSorted()]),
  );
}

/**
 * Reads GET /v1/health/service/<name>: all instances, sorted by id, as Consul promises no order. An instance that is
 * as it was stays the same object, and so does the list; a long one is read over several turns of the event loop.
 */
export async function readInstances(body: unknown, before: Instance[] = []): Promise<Instance[]> {
  if (!Array.isArray(body)) throw notConsul('a list', body);
  const known = new Map(before.map(instance => [instanceKey(instance), instance]));
  const instances: Instance[] = [];
  for (let start = 0; start < body.length; start += SLICE) {
    // The first waits too: parsing the text of so many has just taken as long.
    if (body.length > SLICE) await turn();
    for (const entry of body.slice(start, start + SLICE) as HealthEntry[]) {
      const instance = readInstance(entry);
      const old = known.get(instanceKey(instance));
      instances.push(old !== undefined && isDeepStrictEqual(old, instance) ? old : instance);
    }
  }
  instances.sort((a, b) => compare(a.id, b.id) || compare(a.node, b.node));
  const same = instances.length === before.length && instances.every((instance, i) => instance === before[i]);
  return same ? before : instances;
}

/** An id is unique on its node only. */
function instanceKey({ id, node }: Instance): string {
  return `${node}\n${id}`;
}

/**
 * Whether nothing is known of it yet: none of its own checks has said a word since it was registered. It gets there
 * again when an agent that has forgotten it is told anew.
 */
export function isUnchecked({ id, status, reason }: Instance): boolean {
  return (
    status !== 'passing' && reason.split('; ').every(text => text.startsWith(`${id}:`) && UNSAID.test(text))
  );
}

/** Reads GET /v1/kv/<prefix>?recurse: name → JSON value; remembers the good values for broken ones. */
export function createDefinitionsReader(prefix: string, onError: (error: Error) => void) {
  let good = new Map<string, unknown>();
  let broken = new Set<string>();
  return (body: unknown): Map<string, unknown> => {
    if (body !== undefined && !Array.isArray(body)) throw notConsul('a list', body);
    const known = good;
    const complained = broken;
    good = new Map();
    broken = new Set();
    for (const item of (body ?? []) as KvItem[]) {
      const name = item.Key.slice(prefix.length);
      // Consul's own UI makes a folder by a key that ends with the slash.
      if (name === '' || name.endsWith('/')) continue;
      try {
        good.set(name, parseDefinition(item));
      } catch (error) {
        const version = `${item.Key} ${item.ModifyIndex}`;
        broken.add(version);
        if (known.has(name)) good.set(name, known.get(name));
        if (!complained.has(version)) onError(error as Error);
      }
    }
    return good;
  };
}

/** An entry of Consul's KV store, its value decoded from base64. */
export interface KvItem {
  Key: string;
  /** null when empty */
  Value: string | null;
  ModifyIndex: number;
}

/** Throws ConsulError, naming the key, on a value that is not JSON. */
export function parseDefinition({ Key, Value }: KvItem): unknown {
  try {
    return JSON.parse(Value ?? '');
  } catch (error) {
    throw new ConsulError(
      `${Key} in Consul's KV store is not JSON (${(error as Error).message}); delete the key`,
    );
  }
}

interface HealthEntry {
  Node: { Node: string; Address: string };
  Service: {
    ID: string;
    Service: string;
    Address: string;
    Port: number;
    Tags: string[] | null;
    Meta: Record<string, string> | null;
    Weights?: { Passing: number; Warning: number } | null;
  };
  Checks: Check[] | null;
}

interface Check {
  CheckID: string;
  Status: string;
  Output: string;
  Notes: string;
}

function readInstance({ Node, Service, Checks }: HealthEntry): Instance {
  const checks = Checks ?? [];
  const failing = checks.filter(check => check.Status !== 'passing');
  const worst = Math.max(0, ...failing.map(check => STATUSES.indexOf(statusOf(check))));
  return {
    id: Service.ID,
    service: Service.Service,
    node: Node.Node,
    address: Service.Address || Node.Address,
    port: Service.Port,
    tags: Service.Tags ?? [],
    meta: Service.Meta ?? {},
    weights: { passing: Service.Weights?.Passing ?? 1, warning: Service.Weights?.Warning ?? 1 },
    status: STATUSES[worst] ?? 'critical',
    reason: reasonOf(failing),
  };
}

function statusOf({ CheckID, Status }: Check): Instance['status'] {
  if (CheckID === '_node_maintenance' || CheckID.startsWith('_service_maintenance:')) return 'maintenance';
  return Status === 'passing' || Status === 'warning' ? Status : 'critical';
}

/**
 * The worker's own words (its TTL check) when it has any: what its HTTP check says beside them may be minutes old, as
 * the agent holds back changes of an output alone. A maintenance check has its reason in the notes.
 */
function reasonOf(failing: Check[]): string {
  const own = failing.find(
    check => isTtl(check) && check.Output !== '' && !check.Output.startsWith(TTL_EXPIRED),
  );
  const maintenance = failing.filter(check => statusOf(check) === 'maintenance');
  const telling = own ? [own, ...maintenance] : failing;
  const words = telling.map(({ Output, Notes }) => (Output || Notes).trim()).filter(text => text !== '');
  return words.join('; ') || failing.map(({ CheckID, Status }) => `${CheckID} is ${Status}`).join('; ');
}

function isTtl({ CheckID }: Check): boolean {
  return CheckID.endsWith(':ttl');
}

function notConsul(wanted: string, body: unknown): ConsulError {
  return new ConsulError(`expected ${wanted} of Consul, got ${String(JSON.stringify(body)).slice(0, 100)}`);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

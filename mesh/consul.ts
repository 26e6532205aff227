import { isDeepStrictEqual } from 'node:util';
import {
  ask,
  type ConsulAddress,
  ConsulError,
  closeLink,
  ignoreUnknown,
  type Link,
  localAddress,
  NotRegistered,
  openLink,
  type WatchMethod,
} from './consul-link.ts';
import {
  createDefinitionsReader,
  follow,
  type KvItem,
  parseDefinition,
  readInstances,
  readServices,
} from './consul-watch.ts';

export { type ConsulAddress, ConsulError, NotRegistered };

const DEFINITIONS = 'mcp-mesh/services/';
/** Consul cuts at 4096 bytes, in the middle of a character, and adds a text of its own. */
const OUTPUT_BYTES = 4096;
const CUT_MARK = ' … (cut)';
const PUT_ATTEMPTS = 5;
/** Share of the TTL after which a report on its way may arrive too late. */
const TTL_MARGIN = 0.9;

export interface Registration {
  id: string;
  name: string;
  address: string;
  port: number;
  tags: readonly string[];
  /** Consul's limits: 64 pairs, keys of [A-Za-z0-9_-] up to 128, values up to 512 characters. */
  meta: Readonly<Record<string, string>>;
  weights: { passing: number; warning: number };
  ttlSeconds: number;
  /** Consul takes no less than 60. */
  deregisterAfterSeconds: number;
  /** Consul takes no interval below 1 s. */
  health: { url: string; intervalSeconds: number; timeoutSeconds: number };
}

export interface Instance {
  id: string;
  service: string;
  node: string;
  /** The service's own address, else its node's. */
  address: string;
  port: number;
  tags: string[];
  meta: Record<string, string>;
  weights: { passing: number; warning: number };
  /** The worst of its checks, its node's included. */
  status: 'passing' | 'warning' | 'critical' | 'maintenance';
  /** Why it does not pass, in the worker's own words where it has any; '' when all checks pass. */
  reason: string;
}

export interface Watch {
  /** Epoch ms of Consul's last good answer, changed or not; 0 before the first. */
  answeredAt(): number;
  close(): void;
}

type OnError = (error: Error) => void;

export interface Consul {
  /**
   * Registers or replaces an instance with two checks, `<id>:ttl`, critical at first, and `<id>:http`.
   * A check that the agent already has under that id keeps its status and output: report right after.
   */
  register(registration: Registration): Promise<void>;
  /** An unknown id is not an error. */
  deregister(id: string): Promise<void>;
  /** Updates the TTL check; calls for one id take effect in their order. NotRegistered: the agent forgot it. */
  report(id: string, status: 'passing' | 'critical', output: string): Promise<void>;
  isRegistered(id: string): Promise<boolean>;
  /** undefined when there is none. */
  getDefinition(name: string): Promise<unknown>;
  /** Writes JSON only when it differs, with compare-and-set: equal workers publish once. */
  putDefinition(name: string, value: unknown): Promise<void>;
  /** Service name → tags. */
  watchServices(onChange: (services: Map<string, string[]>) => void, onError: OnError): Watch;
  /** All instances in any state, sorted by id; an unknown service has none. */
  watchInstances(service: string, onChange: (instances: Instance[]) => void, onError: OnError): Watch;
  /** Name → definition. One that is not JSON goes to onError, and its last good value stays. */
  watchDefinitions(onChange: (definitions: Map<string, unknown>) => void, onError: OnError): Watch;
  /** The address of our interface that routes to Consul: others reach us there. */
  localAddress(): Promise<string>;
  /** Ends all watches and sockets, requests under way included: the process may exit. */
  close(): void;
}

/**
 * A client of one Consul agent; mesh/consul*.ts are the only place that talks to Consul. Opens no
 * connection before its first call. Throws TypeError on a bad address; all calls reject with ConsulError,
 * after 5 s at the latest. Watches hand on the first answer, every change, and the first answer after an
 * error; after an error they go on by themselves.
 */
export function createConsul(address: ConsulAddress): Consul {
  const link = openLink(address);
  const { catalog, health } = link.client;
  return {
    ...agentCalls(link),
    ...definitionCalls(link),
    watchServices(onChange, onError) {
      const fetch = ((options: object) => catalog.service.list(options)) as WatchMethod;
      return follow(link, { what: 'catalog/services', fetch, read: readServices, onChange, onError });
    },
    watchInstances(service, onChange, onError) {
      const fetch = ((options: object) => health.service({ ...options, service })) as WatchMethod;
      return follow(link, {
        what: `health/service/${service}`,
        fetch,
        read: readInstances,
        onChange,
        onError,
      });
    },
    localAddress: () => localAddress(link),
    close: () => closeLink(link),
  };
}

function agentCalls(link: Link): Pick<Consul, 'register' | 'deregister' | 'report' | 'isRegistered'> {
  const { client } = link;
  const inOrder = createQueues();
  const ttlMs = new Map<string, number>();
  /** What the TTL check surely shows: our last report, until the TTL may have run out (epoch ms). */
  const shown = new Map<string, { state: string; until: number }>();

  async function update(id: string, status: string, output: string): Promise<void> {
    const request = { path: '/agent/check/update/{check}', params: { check: `${id}:ttl` } };
    const body = { Status: status, Output: output };
    await ask(link, `report ${id}`, () => client._put({ ...request, body }));
  }

  async function report(id: string, status: 'passing' | 'critical', output: string): Promise<void> {
    const text = cutOutput(output);
    const state = status === 'passing' ? status : `critical: ${text}`;
    const before = shown.get(id);
    const sentAt = Date.now();
    const known = before !== undefined && sentAt < before.until ? before.state : undefined;
    shown.delete(id);
    // The agent holds a change of the output alone back from the catalogue for minutes
    // (check_update_interval, 5 min), a change of status not. Meanwhile the instance is "warning" at best.
    if (status === 'critical' && known !== 'passing' && known !== state) await update(id, 'warning', text);
    await update(id, status, text);
    shown.set(id, { state, until: sentAt + (ttlMs.get(id) ?? 0) * TTL_MARGIN });
  }

  return {
    register: registration =>
      inOrder(registration.id, async () => {
        const { id, ttlSeconds } = registration;
        shown.delete(id);
        // The package's own agent.service.register drops Weights and knows no replace-existing-checks.
        const request = {
          path: '/agent/service/register',
          params: {},
          query: { 'replace-existing-checks': 'true' },
        };
        const body = registrationBody(registration);
        await ask(link, `register ${id}`, () => client._put({ ...request, body }));
        ttlMs.set(id, ttlSeconds * 1000);
      }),
    deregister: id =>
      inOrder(id, async () => {
        shown.delete(id);
        ttlMs.delete(id);
        const request = { path: '/agent/service/deregister/{id}', params: { id } };
        await ask(link, `deregister ${id}`, () => client._put(request)).catch(ignoreUnknown);
      }),
    report: (id, status, output) => inOrder(id, () => report(id, status, output)),
    async isRegistered(id) {
      const request = { path: '/agent/service/{id}', params: { id } };
      return (
        (await ask(link, `look up ${id}`, () => client._get(request)).catch(ignoreUnknown)) !== undefined
      );
    },
  };
}

function definitionCalls(link: Link): Pick<Consul, 'getDefinition' | 'putDefinition' | 'watchDefinitions'> {
  const { kv } = link.client;
  const read = async (key: string) =>
    (await ask(link, `read ${key}`, () => kv.get({ key }))) as KvItem | undefined;

  return {
    async getDefinition(name) {
      const item = await read(DEFINITIONS + name);
      return item === undefined ? undefined : parseDefinition(item);
    },
    async putDefinition(name, value) {
      const key = DEFINITIONS + name;
      const text = JSON.stringify(value);
      for (let attempt = 0; attempt < PUT_ATTEMPTS; attempt++) {
        const item = await read(key);
        if (item !== undefined && isSameJson(item.Value, text)) return;
        const cas = item?.ModifyIndex ?? 0;
        if ((await ask(link, `write ${key}`, () => kv.set({ key, value: text, cas }))) === true) return;
      }
      throw new ConsulError(`${key} changed ${PUT_ATTEMPTS} times while it was to be written; try again`);
    },
    watchDefinitions(onChange, onError) {
      const fetch = ((options: object) =>
        kv.get({ ...options, key: DEFINITIONS, recurse: true })) as WatchMethod;
      const read = createDefinitionsReader(DEFINITIONS, onError);
      return follow(link, { what: `kv/${DEFINITIONS}`, fetch, read, onChange, onError });
    },
  };
}

function registrationBody({
  id,
  ttlSeconds,
  deregisterAfterSeconds,
  health,
  ...service
}: Registration): object {
  return {
    ID: id,
    Name: service.name,
    Address: service.address,
    Port: service.port,
    Tags: service.tags,
    Meta: service.meta,
    Weights: { Passing: service.weights.passing, Warning: service.weights.warning },
    Checks: [
      {
        CheckID: `${id}:ttl`,
        Name: 'heartbeat of the worker',
        TTL: `${ttlSeconds}s`,
        Status: 'critical',
        DeregisterCriticalServiceAfter: `${deregisterAfterSeconds}s`,
      },
      {
        CheckID: `${id}:http`,
        Name: 'health at the advertised address',
        HTTP: health.url,
        Method: 'GET',
        Interval: `${health.intervalSeconds}s`,
        Timeout: `${health.timeoutSeconds}s`,
        // Not critical: the output of a first failure would be a change of the output alone (see report).
        Status: 'warning',
      },
    ],
  };
}

/** Runs calls with the same key one after the other: on two sockets they would overtake each other. */
function createQueues() {
  const tails = new Map<string, Promise<unknown>>();
  return async function inOrder<T>(key: string, call: () => Promise<T>): Promise<T> {
    const run = (tails.get(key) ?? Promise.resolve()).then(call);
    const tail = run.catch(() => undefined);
    tails.set(key, tail);
    try {
      return await run;
    } finally {
      if (tails.get(key) === tail) tails.delete(key);
    }
  };
}

function cutOutput(output: string): string {
  const bytes = Buffer.from(output);
  if (bytes.length <= OUTPUT_BYTES) return output;
  const kept = bytes.subarray(0, OUTPUT_BYTES - Buffer.byteLength(CUT_MARK));
  // A character cut in two decodes to U+FFFD, which is longer than what is left of it.
  return kept.toString().replace(/\uFFFD+$/, '') + CUT_MARK;
}

function isSameJson(stored: string | null, text: string): boolean {
  try {
    return isDeepStrictEqual(JSON.parse(stored ?? ''), JSON.parse(text));
  } catch {
    return false;
  }
}

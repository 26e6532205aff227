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
  type AgentService,
  connectCheck,
  foreignHttpCheck,
  type Registered,
  type Registration,
  readRegistered,
  reportedChecks,
  serviceBody,
} from './consul-registration.ts';
import {
  createDefinitionsReader,
  follow,
  type KvItem,
  parseDefinition,
  readInstances,
  readServices,
} from './consul-watch.ts';

export { type ConsulAddress, ConsulError, NotRegistered, type Registered, type Registration };

const DEFINITIONS = 'mcp-mesh/services/';
/** Consul cuts at 4096 bytes, in the middle of a character, and adds a text of its own. */
const OUTPUT_BYTES = 4096;
const CUT_MARK = ' … (cut)';
const PUT_ATTEMPTS = 5;
/** Share of the TTL after which a report on its way may arrive too late. */
const TTL_MARGIN = 0.9;

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

/** Throws to refuse what is about to be done to an id. */
export type Admit = (registered: Registered | undefined) => void;

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
   * Without `ttlSeconds` there is `<id>:http` alone, whose redirects Consul does not follow; a Consul that cannot be
   * told so (< 1.9.17, CVE-2022-29153) only connects: `<id>:tcp`.
   * `admit` decides first, by what this agent has under the id; nothing else that this client does to the id comes
   * between.
   */
  register(registration: Registration, admit?: Admit): Promise<void>;
  /** An unknown id is not an error. `admit` as above. */
  deregister(id: string, admit?: Admit): Promise<void>;
  /** Updates the TTL check; calls for one id take effect in their order. NotRegistered: the agent forgot it. */
  report(id: string, status: 'passing' | 'critical', output: string): Promise<void>;
  isRegistered(id: string): Promise<boolean>;
  /** undefined when there is none. */
  getDefinition(name: string): Promise<unknown>;
  /** Writes JSON only when it differs, with compare-and-set: equal workers publish once. */
  putDefinition(name: string, value: unknown): Promise<void>;
  /**
   * Removes it, unless its Consul service still has an instance anywhere, in whatever state. Resolves with whether there
   * is none now.
   */
  removeDefinition(name: string, service: string): Promise<boolean>;
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

  async function lookUp(id: string): Promise<AgentService | undefined> {
    const request = { path: '/agent/service/{id}', params: { id } };
    const answer = await ask(link, `look up ${id}`, () => client._get(request)).catch(ignoreUnknown);
    return (answer as { body: AgentService } | undefined)?.body;
  }

  async function put(registration: Registration, checks: object[]): Promise<void> {
    // The package's own agent.service.register drops Weights and knows no replace-existing-checks.
    const request = {
      path: '/agent/service/register',
      params: {},
      query: { 'replace-existing-checks': 'true' },
    };
    const body = { ...serviceBody(registration), Checks: checks };
    await ask(link, `register ${registration.id}`, () => client._put({ ...request, body }));
  }

  return {
    register: (registration, admit) =>
      inOrder(registration.id, async () => {
        const { id, ttlSeconds } = registration;
        admit?.(readRegistered(await lookUp(id)));
        shown.delete(id);
        if (ttlSeconds !== undefined) {
          await put(registration, reportedChecks(registration, ttlSeconds));
          ttlMs.set(id, ttlSeconds * 1000);
          return;
        }
        ttlMs.delete(id);
        await put(registration, [foreignHttpCheck(registration)]).catch(error => {
          if (!isUnknownField(error)) throw error;
          return put(registration, [connectCheck(registration)]);
        });
      }),
    deregister: (id, admit) =>
      inOrder(id, async () => {
        admit?.(readRegistered(await lookUp(id)));
        shown.delete(id);
        ttlMs.delete(id);
        const request = { path: '/agent/service/deregister/{id}', params: { id } };
        await ask(link, `deregister ${id}`, () => client._put(request)).catch(ignoreUnknown);
      }),
    report: (id, status, output) => inOrder(id, () => report(id, status, output)),
    isRegistered: async id => (await lookUp(id)) !== undefined,
  };
}

function definitionCalls(
  link: Link,
): Pick<Consul, 'getDefinition' | 'putDefinition' | 'removeDefinition' | 'watchDefinitions'> {
  const { kv, health } = link.client;
  const read = async (key: string) =>
    (await ask(link, `read ${key}`, () => kv.get({ key }))) as KvItem | undefined;

  const hasInstances = async (service: string) => {
    const entries = (await ask(link, `look up ${service}`, () => health.service({ service }))) as unknown[];
    return entries.length > 0;
  };

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
    async removeDefinition(name, service) {
      const key = DEFINITIONS + name;
      const item = await read(key);
      if (item === undefined) return true;
      if (await hasInstances(service)) return false;
      const cas = item.ModifyIndex;
      if ((await ask(link, `remove ${key}`, () => kv.del({ key, cas }))) !== true) return false;
      // A worker that registered meanwhile may have found its definition in place just before it went.
      if (!(await hasInstances(service))) return true;
      await ask(link, `write ${key}`, () => kv.set({ key, value: item.Value, cas: 0 }));
      return false;
    },
    watchDefinitions(onChange, onError) {
      const fetch = ((options: object) =>
        kv.get({ ...options, key: DEFINITIONS, recurse: true })) as WatchMethod;
      const read = createDefinitionsReader(DEFINITIONS, onError);
      return follow(link, { what: `kv/${DEFINITIONS}`, fetch, read, onChange, onError });
    },
  };
}

function isUnknownField(error: unknown): boolean {
  return (
    error instanceof ConsulError &&
    error.status === 400 &&
    /unknown field "DisableRedirects"/i.test(error.message)
  );
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

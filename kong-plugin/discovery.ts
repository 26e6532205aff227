import type { Consul, Instance, Watch } from '../mesh/consul.ts';
import { isObject, type JsonObject } from '../mesh/jsonrpc.ts';
import { CONSUL_TAG } from '../mesh/names.ts';

/** A service as the gateway knows it: its definition in KV and its instances in the catalogue. */
export interface KnownService {
  name: string;
  definition: JsonObject;
  instances: Instance[];
}

export interface Discovery {
  /** Resolves when Consul has answered once, or after `ms`. */
  ready(ms: number): Promise<void>;
  find(name: string): KnownService | undefined;
  list(): KnownService[];
  close(): void;
}

interface DiscoveryOptions {
  consul: Consul;
  /** Called with the ids of all instances when they have changed. */
  onInstances(ids: ReadonlySet<string>): void;
  /** Called when Consul cannot be read; the last table stays in use. */
  onError(error: Error): void;
}

/**
 * Follows Consul by blocking queries and answers from memory. A service is known by its definition, by its instances,
 * or by both: one without instances is still a service.
 */
export function createDiscovery({ consul, onInstances, onError }: DiscoveryOptions): Discovery {
  const instances = new Map<string, Instance[]>();
  const watches = new Map<string, Watch>();
  let definitions = new Map<string, unknown>();
  let table = new Map<string, KnownService>();
  const loaded = { services: false, definitions: false };
  let complete = false;
  let announce = () => {};
  const announced = new Promise<void>(resolve => {
    announce = resolve;
  });

  const update = () => {
    table = buildTable(definitions, instances, table);
    onInstances(new Set([...instances.values()].flat().map(({ id }) => id)));
    if (complete || !loaded.services || !loaded.definitions) return;
    complete = [...watches.keys()].every(name => instances.has(name));
    if (complete) announce();
  };
  const follow = (service: string) => {
    const onChange = (current: Instance[]) => {
      instances.set(service, current);
      update();
    };
    watches.set(service, consul.watchInstances(service, onChange, onError));
  };
  const forget = (service: string) => {
    watches.get(service)?.close();
    watches.delete(service);
    instances.delete(service);
  };

  const catalogue = consul.watchServices(services => {
    const wanted = new Set(
      [...services].filter(([, tags]) => tags.includes(CONSUL_TAG)).map(([name]) => name),
    );
    for (const name of watches.keys()) if (!wanted.has(name)) forget(name);
    for (const name of wanted) if (!watches.has(name)) follow(name);
    loaded.services = true;
    update();
  }, onError);
  const keys = consul.watchDefinitions(current => {
    definitions = current;
    loaded.definitions = true;
    update();
  }, onError);

  return {
    async ready(ms) {
      // Every request asks: only the first ones after a start have anything to wait for.
      if (complete) return;
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>(resolve => {
        timer = setTimeout(resolve, ms);
      });
      await Promise.race([announced, late]);
      clearTimeout(timer);
    },
    find: name => table.get(name),
    list: () => [...table.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    close() {
      for (const watch of [catalogue, keys, ...watches.values()]) watch.close();
    },
  };
}

function buildTable(
  definitions: Map<string, unknown>,
  instances: Map<string, Instance[]>,
  before: Map<string, KnownService>,
): Map<string, KnownService> {
  const table = new Map<string, KnownService>();
  for (const [name, definition] of definitions) {
    if (isObject(definition)) table.set(name, { name, definition, instances: [] });
  }
  for (const instance of [...instances.values()].flat()) {
    const name = instance.meta.mcp_server;
    if (name === undefined) continue;
    const known = table.get(name) ?? { name, definition: {}, instances: [] };
    known.instances.push(instance);
    table.set(name, known);
  }
  // What is derived from a service's instances is kept by their array, so it stays the same while they do.
  for (const service of table.values()) {
    const old = before.get(service.name)?.instances;
    const same =
      old?.length === service.instances.length &&
      old.every((instance, i) => instance === service.instances[i]);
    if (old && same) service.instances = old;
  }
  return table;
}

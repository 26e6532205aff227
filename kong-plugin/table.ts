import type { Instance } from '../mesh/consul.ts';
import { isObject, type JsonObject } from '../mesh/jsonrpc.ts';
import { SERVICE_NAME_PATTERN } from '../mesh/names.ts';

/** A service as the gateway knows it: its definition in KV and its instances in the catalogue. */
export interface KnownService {
  name: string;
  definition: JsonObject;
  /** The same array while none of them has changed: what is derived from it is kept by it. */
  instances: Instance[];
}

/**
 * The services by the names that callers use, put together from Consul's, of which each says in its meta whose
 * instance it is. A change costs as much as the services have instances that it concerns.
 */
export class Table {
  readonly #known = new Map<string, KnownService>();
  /** Name → Consul's service → its instances under that name. */
  readonly #parts = new Map<string, Map<string, Instance[]>>();
  #definitions: ReadonlyMap<string, unknown> = new Map();

  find(name: string): KnownService | undefined {
    return this.#known.get(name);
  }

  /** Sorted by name. */
  list(): KnownService[] {
    return [...this.#known.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** All instances of one service of Consul's, in place of those before; none: it is gone. */
  setInstances(service: string, instances: Instance[]): void {
    const groups = groupByName(instances);
    for (const [name, parts] of this.#parts) {
      if (!groups.has(name) && parts.delete(service)) this.#refresh(name);
    }
    for (const [name, group] of groups) {
      const parts = this.#parts.get(name) ?? new Map<string, Instance[]>();
      this.#parts.set(name, parts);
      parts.set(service, group);
      this.#refresh(name);
    }
  }

  /** All definitions, in place of those before. */
  setDefinitions(definitions: ReadonlyMap<string, unknown>): void {
    const names = new Set([...this.#definitions.keys(), ...definitions.keys()]);
    this.#definitions = definitions;
    for (const name of names) this.#refresh(name);
  }

  #refresh(name: string): void {
    const parts = [...(this.#parts.get(name)?.values() ?? [])];
    const definition = this.#definitions.get(name);
    if (parts.length === 0) this.#parts.delete(name);
    if (parts.length === 0 && !(isObject(definition) && SERVICE_NAME_PATTERN.test(name))) {
      this.#known.delete(name);
      return;
    }
    const instances = parts.length === 1 ? (parts[0] as Instance[]) : parts.flat();
    const before = this.#known.get(name)?.instances;
    this.#known.set(name, {
      name,
      definition: isObject(definition) ? definition : {},
      instances: before && isSameList(before, instances) ? before : instances,
    });
  }
}

export function isSameList(a: readonly unknown[] | undefined, b: readonly unknown[]): boolean {
  return a === b || (a?.length === b.length && a.every((item, i) => item === b[i]));
}

/** Anybody may write anything into Consul: a name that no URL can have is none of ours. */
function groupByName(instances: Instance[]): Map<string, Instance[]> {
  const groups = Map.groupBy(instances, ({ meta }) => meta.mcp_server ?? '');
  for (const [name, group] of groups) {
    if (!SERVICE_NAME_PATTERN.test(name)) groups.delete(name);
    else if (group.length === instances.length) groups.set(name, instances);
  }
  return groups;
}

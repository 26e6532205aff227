import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import { type Reply, reply } from './reply.ts';

export const DATACENTER = 'dc1';

export interface Service {
  ID: string;
  Service: string;
  Tags: string[];
  Address: string;
  Port: number;
  Meta: Record<string, string>;
  Weights: { Passing: number; Warning: number };
  EnableTagOverride: boolean;
}

export interface Check {
  Node: string;
  CheckID: string;
  Name: string;
  Status: 'passing' | 'warning' | 'critical';
  Notes: string;
  Output: string;
  ServiceID: string;
  ServiceName: string;
  ServiceTags: string[];
  Type: string;
  Definition: object;
}

type Indexed<T> = T & { CreateIndex: number; ModifyIndex: number };

/** The one counter that all writes share, as Raft's log index, and those who wait for it to move. */
export interface Clock {
  index: number;
  waiting: Set<() => void>;
}

/** Takes the next index and wakes all blocking queries: each looks whether its own data moved. */
export function tick(clock: Clock): number {
  clock.index += 1;
  for (const wake of [...clock.waiting]) queueMicrotask(wake);
  return clock.index;
}

/** The servers' side: what agents wrote, with the indexes of blocking queries (Consul's agent/consul/state/catalog.go). */
export class Catalog {
  readonly node;
  readonly #clock: Clock;
  readonly #services = new Map<string, Indexed<Service>>();
  readonly #checks = new Map<string, Indexed<Check>>();
  readonly #serf: Indexed<Check>;
  /** Index of each service that exists; one of its checks moves it too. */
  readonly #serviceIndexes = new Map<string, number>();
  #servicesIndex: number;
  /** The index of all unknown services: it moves when any service loses its last instance. */
  #lastExtinction = 0;

  constructor(clock: Clock, address: string) {
    this.#clock = clock;
    this.#servicesIndex = tick(clock);
    this.node = {
      ID: randomUUID(),
      Node: hostname(),
      Address: address,
      Datacenter: DATACENTER,
      TaggedAddresses: { lan: address, wan: address },
    };
    this.#serf = serfHealth(this.node.Node, this.#servicesIndex);
  }

  /** Writes a service with its changed checks in one transaction; an unchanged one moves no index. */
  put(service: Service, changed: Check[]): void {
    const before = this.#services.get(service.ID);
    if (before !== undefined && before.Service !== service.Service) this.remove(service.ID);
    const next = this.#clock.index + 1;
    const serviceMoved = write(this.#services, service.ID, service, next);
    const checksMoved = changed.map(check => write(this.#checks, check.CheckID, check, next)).includes(true);
    if (!serviceMoved && !checksMoved) return;
    if (serviceMoved) this.#servicesIndex = next;
    this.#serviceIndexes.set(service.Service, next);
    tick(this.#clock);
  }

  remove(id: string): void {
    const service = this.#services.get(id);
    if (service === undefined) return;
    this.#services.delete(id);
    for (const check of this.#checks.values()) if (check.ServiceID === id) this.#checks.delete(check.CheckID);
    this.#servicesIndex = tick(this.#clock);
    this.#serviceIndexes.set(service.Service, this.#servicesIndex);
    if (this.#instancesOf(service.Service).length > 0) return;
    this.#serviceIndexes.delete(service.Service);
    this.#lastExtinction = this.#servicesIndex;
  }

  removeCheck(id: string): void {
    const check = this.#checks.get(id);
    if (check === undefined) return;
    this.#checks.delete(id);
    this.#serviceIndexes.set(check.ServiceName, tick(this.#clock));
  }

  /** GET /v1/catalog/services */
  listServices(): Reply {
    const tags: Record<string, string[]> = { consul: [] };
    for (const { Service, Tags } of this.#services.values()) {
      tags[Service] = [...new Set([...(tags[Service] ?? []), ...Tags])];
    }
    return reply(tags, this.#servicesIndex);
  }

  /** GET /v1/catalog/service/<name> */
  listInstances(name: string): Reply {
    const rows = this.#instancesOf(name).map(service => ({
      ...{ ...this.node, NodeMeta: {}, ServiceKind: '' },
      ServiceID: service.ID,
      ServiceName: service.Service,
      ServiceTags: service.Tags,
      ServiceAddress: service.Address,
      ServiceWeights: service.Weights,
      ServiceMeta: service.Meta,
      ServicePort: service.Port,
      ServiceEnableTagOverride: service.EnableTagOverride,
      CreateIndex: service.CreateIndex,
      ModifyIndex: service.ModifyIndex,
    }));
    return reply(rows, this.#indexOf(name));
  }

  /** GET /v1/health/service/<name> */
  listHealth(name: string, passingOnly: boolean): Reply {
    const { CreateIndex, ModifyIndex } = this.#serf;
    const rows = this.#instancesOf(name).map(service => ({
      Node: { ...this.node, Meta: {}, CreateIndex, ModifyIndex },
      Service: service,
      Checks: [this.#serf, ...[...this.#checks.values()].filter(check => check.ServiceID === service.ID)],
    }));
    const isPassing = ({ Checks }: { Checks: Check[] }) => Checks.every(check => check.Status === 'passing');
    return reply(passingOnly ? rows.filter(isPassing) : rows, this.#indexOf(name));
  }

  #instancesOf(name: string): Indexed<Service>[] {
    return [...this.#services.values()].filter(service => service.Service === name);
  }

  #indexOf(name: string): number {
    const ofAll = Math.max(this.#servicesIndex, ...this.#serviceIndexes.values());
    return this.#serviceIndexes.get(name) ?? (this.#lastExtinction || ofAll);
  }
}

/** True when the value differs from what the table had. */
function write<T extends object>(
  table: Map<string, Indexed<T>>,
  id: string,
  value: T,
  index: number,
): boolean {
  const before = table.get(id);
  if (before !== undefined) {
    const { CreateIndex, ModifyIndex, ...old } = before;
    if (isDeepStrictEqual(old, value)) return false;
  }
  table.set(id, { ...structuredClone(value), CreateIndex: before?.CreateIndex ?? index, ModifyIndex: index });
  return true;
}

function serfHealth(node: string, index: number): Indexed<Check> {
  return {
    Node: node,
    CheckID: 'serfHealth',
    Name: 'Serf Health Status',
    Status: 'passing',
    Notes: '',
    Output: 'Agent alive and reachable',
    ServiceID: '',
    ServiceName: '',
    ServiceTags: [],
    Type: '',
    Definition: {},
    CreateIndex: index,
    ModifyIndex: index,
  };
}

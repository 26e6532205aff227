import { readdirSync } from 'node:fs';
import { readProcess } from '../child/process-table.ts';
import type { Elastic } from './elastic.ts';
import type { ServiceGroup } from './group.ts';
import type { Slot, SlotState } from './slot.ts';

/** What `GET /status` of the control socket answers. */
export interface FleetStatus {
  /** Of the supervisor. */
  pid: number;
  /** ISO 8601. */
  started_at: string;
  registry: { path: string; error: string | null };
  services: ServiceRow[];
  instances: InstanceRow[];
}

export interface ServiceRow {
  service: string;
  /** Instances there are to be. */
  wanted: number;
  ready: number;
  /** null: the number does not follow the load. */
  scaling: { min: number; max: number; target_in_flight: number } | null;
  /** With `min: 0`: whether an activator takes the calls, and how many it holds. */
  activator: { offered: boolean; held: number; failure: string | null } | null;
  /** What a rolling restart waits for. */
  rollout: string | null;
}

export interface InstanceRow {
  service: string;
  /** `<service>#<number>`: names the instance also before it has an id. */
  slot: string;
  /** In Consul; null until it has listened. */
  id: string | null;
  /** host:port */
  address: string | null;
  pid: number | null;
  state: SlotState;
  /** Why it is not ready; empty when it is. */
  reason: string;
  era: string | null;
  in_flight: number | null;
  queue: number | null;
  p50_ms: number | null;
  p95_ms: number | null;
  /** Of the worker and all processes below it. */
  rss_bytes: number | null;
  /** Times its worker was started again. */
  restarts: number;
  /** Times this worker started its MCP server again. */
  server_restarts: number | null;
  breaker: 'open' | 'closed' | null;
  uptime_s: number | null;
  last_error: string | null;
}

export function describeService(group: ServiceGroup, elastic: Elastic): ServiceRow {
  const { instances } = group.service;
  const scaling = typeof instances === 'number' ? null : instances;
  const { offered, held, failure } = elastic.activator;
  return {
    service: group.name,
    wanted: group.count,
    ready: group.ready().length,
    scaling,
    activator: scaling?.min === 0 ? { offered, held, failure: failure ?? null } : null,
    rollout: group.rollout ?? null,
  };
}

export function describeInstance(
  service: string,
  slot: Slot,
  memory: ReadonlyMap<number, number>,
): InstanceRow {
  const { place, load, pid, startedAt } = slot;
  const urlHost = place?.address.includes(':') ? `[${place.address}]` : place?.address;
  return {
    service,
    slot: slotName(service, slot),
    id: place?.instance ?? null,
    address: place ? `${urlHost}:${place.port}` : null,
    pid: pid ?? null,
    state: slot.state,
    reason: slot.reason,
    era: slot.era ?? null,
    in_flight: load?.inFlight ?? null,
    queue: load?.queue ?? null,
    p50_ms: load?.p50Ms ?? null,
    p95_ms: load?.p95Ms ?? null,
    rss_bytes: pid === undefined ? null : (memory.get(pid) ?? null),
    restarts: slot.restarts,
    server_restarts: load?.childRestarts ?? null,
    breaker: load ? (load.breakerOpen ? 'open' : 'closed') : null,
    uptime_s: startedAt === 0 ? null : Math.round((Date.now() - startedAt) / 1000),
    last_error: slot.lastError ?? null,
  };
}

export function slotName(service: string, { index }: Slot): string {
  return `${service}#${index}`;
}

/** Resident memory of each of these processes with all below it; empty without /proc. */
export function memoryOf(pids: readonly number[]): Map<number, number> {
  const wanted = new Set(pids);
  const entries = new Map(
    listPids().flatMap(pid => {
      const entry = readProcess(pid);
      return entry ? [[pid, entry] as const] : [];
    }),
  );
  const sums = new Map<number, number>();
  for (const entry of entries.values()) {
    // Up to the worker that it belongs to; a process reached twice would mean a loop, which /proc can show for an instant.
    const seen = new Set<number>();
    for (let at: typeof entry | undefined = entry; at && !seen.has(at.pid); at = entries.get(at.parent)) {
      seen.add(at.pid);
      if (!wanted.has(at.pid)) continue;
      sums.set(at.pid, (sums.get(at.pid) ?? 0) + entry.rssBytes);
      break;
    }
  }
  return sums;
}

function listPids(): number[] {
  try {
    return readdirSync('/proc').map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
}

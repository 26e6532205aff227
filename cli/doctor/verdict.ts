import type { ConsulAddress } from '../../mesh/consul.ts';
import type { Service } from '../../mesh/registry.ts';
import type { FleetStatus, InstanceRow } from '../../workers/fleet/status.ts';

/** What is known of one link between the registry and a caller. */
export type Verdict =
  | { state: 'ok' | 'skipped'; text: string }
  /** `cure`: how to mend it. */
  | { state: 'broken'; text: string; cure: string };

/** One service, and what the links of its chain are looked at with. */
export interface Patient {
  service: Service;
  /** What the supervisor on this host says; undefined: none runs. */
  fleet: FleetStatus | undefined;
  /** The service's own instances of that supervisor. */
  rows: readonly InstanceRow[];
  /** Folder that relative paths start from: the supervisor's, else ours. */
  folder: string;
  consul: ConsulAddress | undefined;
  /** Without a slash at its end. */
  gateway: string;
  /** The caller's API key or token. */
  key: string | undefined;
  /** Longest time for a server's start, and for a call. */
  timeoutMs: number;
}

export function ok(text: string): Verdict {
  return { state: 'ok', text };
}

export function skipped(text: string): Verdict {
  return { state: 'skipped', text };
}

export function broken(text: string, cure: string): Verdict {
  return { state: 'broken', text, cure };
}

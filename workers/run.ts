import { setTimeout as delay } from 'node:timers/promises';
import type { Service } from '../mesh/registry.ts';
import type { Connection } from './connection.ts';
import type { Recycling } from './recycling.ts';

/** One process of a server's, from its start to its end. */
export interface Run {
  /** Counts the processes that were started for the server, from 1. */
  generation: number;
  connection: Connection;
  /** By performance.now(), as `readyAt`, which stays undefined until the handshake is done. */
  startedAt: number;
  readyAt: number | undefined;
  calls: number;
  recycling: Recycling;
}

const POLL_MS = 50;

/** Ends a run that gets no new calls, when those in it are answered, or could have been by the registry's bounds. */
export async function retire({ connection }: Run, { timeout_ms, tool_timeouts }: Service): Promise<void> {
  const deadline = performance.now() + Math.max(timeout_ms, ...Object.values(tool_timeouts));
  while (connection.busy > 0 && performance.now() < deadline) {
    await delay(POLL_MS, undefined, { ref: false });
  }
  await connection.stop();
}

import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { type RpcRequest, readMessage } from '../../../mesh/jsonrpc.ts';
import { adHocService } from '../../../mesh/registry.ts';
import { workerSettings } from '../../../mesh/settings.ts';
import type { Caller } from '../../../workers/caller.ts';
import { createHost, type Host } from '../../../workers/host.ts';

export interface FairnessOptions {
  /** Time of a call in the server. */
  paceMs: number;
  /** Calls that the server works on at once; 0: any number. */
  places: number;
  /** The registry's. */
  concurrency: number;
  /** Calls that the greedy caller keeps under way. */
  greedy: number;
  /** Calls of the other one, alone and beside the greedy one each, in each round. */
  calls: number;
  rounds: number;
}

/** Of one round. */
export interface FairnessTimes {
  /** Of the modest caller's calls in ms, in their order. */
  alone: number[];
  crowded: number[];
  /** Calls a second of the greedy caller beside the other. */
  greedyRate: number;
}

const PACED = fileURLToPath(new URL('../../fixtures/servers/paced.mjs', import.meta.url));

/**
 * A caller with one call at a time and pauses between them, first alone, then beside one that keeps many under way: the
 * worker's Relay with a real server process, without HTTP, which would add the same to both.
 */
export async function measureFairness(options: FairnessOptions): Promise<FairnessTimes[]> {
  const host = await startHost(options);
  const rounds: FairnessTimes[] = [];
  try {
    while (rounds.length < options.rounds) {
      const alone = await modestCalls(host, options);
      const greedy = startGreedy(host, options.greedy);
      const crowded = await modestCalls(host, options);
      rounds.push({ alone, crowded, greedyRate: await greedy.stop() });
    }
    return rounds;
  } finally {
    await host.stop();
  }
}

async function startHost({ paceMs, places, concurrency }: FairnessOptions): Promise<Host> {
  const service = adHocService({ name: 'paced', command: process.execPath, args: [PACED] });
  const { promise: ready, resolve } = Promise.withResolvers<void>();
  const host = createHost({
    service: {
      ...service,
      concurrency,
      env: { PACE_MS: String(paceMs), PLACES: String(places) },
    },
    settings: workerSettings({}),
    log: pino({ level: 'silent' }),
    consul: undefined,
    keys: [randomBytes(32)],
    instance: () => 'bench',
    onState: state => {
      if (state === 'ready') resolve();
    },
  });
  host.server.start();
  await ready;
  return host;
}

/** Pauses as long as a call takes on average, so that its calls come at any moment of the other's. */
async function modestCalls(host: Host, { calls, paceMs }: FairnessOptions): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < calls; i += 1) {
    await pause(Math.random() * 2 * paceMs);
    const start = performance.now();
    await host.gate.call(host.server, workCall(i), { caller: callerNamed('modest') });
    times.push(performance.now() - start);
  }
  return times;
}

function startGreedy(host: Host, inFlight: number): { stop(): Promise<number> } {
  let stopped = false;
  let ended = 0;
  const start = performance.now();
  const caller = async () => {
    while (!stopped) {
      await host.gate.call(host.server, workCall(ended), { caller: callerNamed('greedy') });
      ended += 1;
    }
  };
  const callers = Promise.all(Array.from({ length: inFlight }, caller));
  return {
    async stop() {
      const rate = (ended * 1000) / (performance.now() - start);
      stopped = true;
      await callers;
      return rate;
    },
  };
}

function callerNamed(principal: string): Caller {
  return { principal, grants: { allow: [{}], deny: [] }, limits: {}, callId: 'bench', vouched: true };
}

function workCall(id: number): RpcRequest {
  const request = { jsonrpc: '2.0', id, method: 'tools/call', params: { name: 'work', arguments: {} } };
  return readMessage(JSON.stringify(request)) as RpcRequest;
}

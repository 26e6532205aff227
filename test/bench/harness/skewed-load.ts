import { setTimeout as pause } from 'node:timers/promises';
import { type BenchMesh, SERVICE, withMesh } from './mesh.ts';

export interface SkewedLoadOptions {
  /** Time of a call at three of the four instances, in ms. */
  paceMs: number;
  /** How many times slower the fourth is. */
  slower: number;
  /** Calls, for each strategy in each round. */
  calls: number;
  rounds: number;
  callsPerSecond: number;
}

interface Outcome {
  /** Of the calls, in ms. */
  times: number[];
  /** Of the calls, at the slow instance. */
  slowShare: number;
}

/** Of one round. */
export interface SkewedLoadResult {
  adaptive: Outcome;
  roundRobin: Outcome;
}

interface Answer {
  ms: number;
  /** Pid of the server. */
  server: string;
}

/**
 * The same calls at the same times to the same four instances, first by turns, then by ADAPTIVE with what the gateway
 * has learnt by then. Calls come by the clock and not when the one before has ended, so that a slow instance cannot
 * slow the load down (coordinated omission).
 */
export function measureSkewedLoad(options: SkewedLoadOptions): Promise<SkewedLoadResult[]> {
  const { paceMs, slower } = options;
  const paces = [paceMs * slower, paceMs, paceMs, paceMs];
  return withMesh({ gateways: 1, paces }, async mesh => {
    const slow = await mesh.work(`http://127.0.0.1:${mesh.workers[0]?.port}`);
    const measure = async (strategy: string): Promise<Outcome> => {
      await mesh.useStrategy(strategy);
      const answers = await callByTheClock(mesh, options);
      const atSlow = answers.filter(({ server }) => server === slow);
      return { times: answers.map(({ ms }) => ms), slowShare: atSlow.length / answers.length };
    };
    const rounds: SkewedLoadResult[] = [];
    while (rounds.length < options.rounds)
      rounds.push({ roundRobin: await measure('ROUND_ROBIN'), adaptive: await measure('ADAPTIVE') });
    return rounds;
  });
}

async function callByTheClock(
  mesh: BenchMesh,
  { calls, callsPerSecond }: SkewedLoadOptions,
): Promise<Answer[]> {
  const url = `${mesh.gateways[0]?.url}/api/v1/mcp/${SERVICE}`;
  const start = performance.now();
  const callAt = async (due: number): Promise<Answer> => {
    const server = await mesh.work(url);
    return { server, ms: performance.now() - due };
  };
  const answers: Promise<Answer>[] = [];
  while (answers.length < calls) {
    const due = start + (answers.length * 1000) / callsPerSecond;
    const early = due - performance.now();
    if (early > 0) await pause(early);
    answers.push(callAt(due));
  }
  return Promise.all(answers);
}

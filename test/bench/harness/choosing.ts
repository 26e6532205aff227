import { createIpHash } from '../../../kong-plugin/balancer/ip-hash.ts';
import { createLeastConnections } from '../../../kong-plugin/balancer/least-connections.ts';
import { Load } from '../../../kong-plugin/balancer/load.ts';
import type { Candidate, Strategy } from '../../../kong-plugin/balancer/strategy.ts';
import { createWeighted } from '../../../kong-plugin/balancer/weighted.ts';

const ROUNDS = 20;

/** Instances of one service that nothing is known of, by their weights. */
export function candidatesOf(weights: readonly number[]): Candidate[] {
  return weights.map((passing, i) => ({
    load: new Load(),
    instance: {
      id: `mcp-a-host-${i}`,
      service: 'mcp-a',
      node: 'host',
      address: '10.0.0.1',
      port: i,
      tags: [],
      meta: {},
      weights: { passing, warning: 1 },
      status: 'passing',
      reason: '',
    },
  }));
}

/**
 * Time of one choice with two fallbacks, in microseconds: the mean of the best of twenty rounds,
 * which nothing else on the machine has come into.
 */
export function timeOfChoice(strategy: Strategy, instances: number, picks: number): number {
  const candidates = candidatesOf(Array.from({ length: instances }, (_, i) => 1 + (i % 100)));
  for (const [i, { load }] of candidates.entries()) {
    for (let calls = i % 7; calls > 0; calls -= 1) load.enter(0);
  }
  const run = (count: number) => {
    for (let i = 0; i < count; i += 1)
      strategy.pick(candidates, { key: `10.0.${i & 255}.1`, now: 1000 + i }, 3);
  };
  const round = picks / ROUNDS;
  run(2 * round);
  const times = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    run(round);
    return ((performance.now() - start) * 1000) / round;
  });
  return Math.min(...times);
}

/** WEIGHTED: the largest relative difference between what an instance got and its weight's share. */
export function errorOfShares(weights: readonly number[], picks: number): number {
  const counts = picksOf(createWeighted(), candidatesOf(weights), picks);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Math.max(...weights.map((weight, i) => Math.abs(((counts[i] ?? 0) * total) / (weight * picks) - 1)));
}

/** IP_HASH: share of the keys that move when an instance joins, beyond the 1/n that it has to get. */
export function excessOfMoves(instances: number, keys: number): number {
  const after = candidatesOf(Array.from({ length: instances }, () => 1));
  const before = after.slice(0, -1);
  const [old, joined] = [createIpHash(), createIpHash()];
  let moved = 0;
  for (let i = 0; i < keys; i += 1) {
    const call = { key: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, now: 0 };
    const [was] = old.pick(before, call, 1);
    const [is] = joined.pick(after, call, 1);
    if (was !== is) moved += 1;
  }
  return moved / keys - 1 / instances;
}

/**
 * LEAST_CONNECTIONS: how far choices among equals are from chance, against what chance itself exceeds once in 10,000
 * times. Pairs of choices in a row are counted (chi-square): going round would give every instance its exact share, too.
 */
export function chanceOfTies(instances: number, picks: number): number {
  const strategy = createLeastConnections();
  const candidates = candidatesOf(Array.from({ length: instances }, () => 1));
  const cells = new Array<number>(instances ** 2).fill(0);
  const pick = () => candidates.indexOf(strategy.pick(candidates, { key: '', now: 0 }, 1)[0] as Candidate);
  for (let i = 0; i < picks; i += 2) {
    const cell = pick() * instances + pick();
    cells[cell] = (cells[cell] ?? 0) + 1;
  }
  const expected = picks / 2 / cells.length;
  const chiSquare = cells.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  return chiSquare / criticalChiSquare(cells.length - 1);
}

function picksOf(strategy: Strategy, candidates: Candidate[], picks: number): number[] {
  const counts = candidates.map(() => 0);
  for (let i = 0; i < picks; i += 1) {
    const [chosen] = strategy.pick(candidates, { key: `k${i}`, now: i }, 1);
    const at = candidates.indexOf(chosen as Candidate);
    counts[at] = (counts[at] ?? 0) + 1;
  }
  return counts;
}

/** The value that chance exceeds once in 10,000 times (Wilson and Hilferty's approximation, 1931). */
function criticalChiSquare(freedom: number): number {
  const deviations = 3.719;
  const unit = 2 / (9 * freedom);
  return freedom * (1 - unit + deviations * Math.sqrt(unit)) ** 3;
}

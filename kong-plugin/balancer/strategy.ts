import type { Instance } from '../../mesh/consul.ts';
import type { Load } from './load.ts';

/** An instance that may take calls, with what is known of its load; both stay the same objects while it stays. */
export interface Candidate {
  readonly instance: Instance;
  readonly load: Load;
}

/** What a strategy may know of the call. */
export interface Call {
  /** Of the caller: principal, or address. The same key should find the same instance. */
  key: string;
  /** Milliseconds since the epoch. */
  now: number;
}

/** Chooses among the candidates of one service; each service has a strategy object of its own. */
export interface Strategy {
  /**
   * The best candidates for a call, at most `wanted` of them, best first. The list is the same array until the
   * service's instances change, so that what is derived from it can be kept.
   */
  pick(candidates: readonly Candidate[], call: Call, wanted: number): Candidate[];
}

export type Random = () => number;

/** `first`, then others at random: where a call goes next when the connection fails. */
export function withFallbacks(
  first: Candidate,
  candidates: readonly Candidate[],
  wanted: number,
  random: Random,
): Candidate[] {
  const chosen = new Set([first]);
  const most = Math.min(wanted, candidates.length);
  while (chosen.size < most) chosen.add(candidates[Math.floor(random() * candidates.length)] as Candidate);
  return [...chosen];
}

/** One of the list at random. */
export function anyOf(candidates: readonly Candidate[], random: Random): Candidate {
  return candidates[Math.floor(random() * candidates.length)] as Candidate;
}

import type { Candidate, Strategy } from './strategy.ts';

/**
 * The same caller to the same instance, by rendezvous hashing (Thaler and Ravishankar, 1998): each instance scores the
 * caller's key and the highest score wins, so an instance that joins takes 1/n of the callers and moves no other.
 */
export function createIpHash(): Strategy {
  let seeds = new Uint32Array();
  let seedsOf: readonly Candidate[] | undefined;
  return {
    pick(candidates, { key }, wanted) {
      if (candidates !== seedsOf) {
        seeds = Uint32Array.from(candidates, ({ instance }) => hash(instance.id));
        seedsOf = candidates;
      }
      const caller = hash(key);
      const best: { candidate: Candidate; score: number }[] = [];
      candidates.forEach((candidate, i) => {
        const score = mix((seeds[i] as number) ^ caller);
        if (best.length === wanted && score <= (best.at(-1)?.score ?? 0)) return;
        best.push({ candidate, score });
        best.sort((a, b) => b.score - a.score);
        best.length = Math.min(best.length, wanted);
      });
      return best.map(({ candidate }) => candidate);
    },
  };
}

/** FNV-1a, 32 bits, with its weak low bits mixed. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return mix(value);
}

/** The finaliser of MurmurHash3: every bit of the input moves half of the output's. */
function mix(value: number): number {
  let mixed = value;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

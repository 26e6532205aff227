import { dirname, join } from 'node:path';

/** Node's options for a worker, of which there are many on one machine. */
export const NODE_FLAGS: readonly string[] = [
  // Of what passes through a worker next to nothing is kept: a young generation as large as V8 makes it on a big machine
  // (64 MB and more) is memory that only fills with garbage.
  '--max-semi-space-size=8',
  // V8 takes objects that lived through a slow start for ones that live long, and makes all of their kind in the old
  // generation from then on, where each keeps a whole call until a full collection: 1 MB of 8 in each small one. One
  // worker in two of the same program took a third more for its calls that way, and 60 MB more.
  '--no-allocation-site-pretenuring',
  // What is kept is small, and may not grow to four times that before V8 looks through it.
  '--heap-growing-percent=100',
  // Each thread that helps V8 holds on to memory of its own; with only one, single calls took a quarter longer.
  '--v8-pool-size=2',
  // The middle one of V8's compilers: the last one replaces what it made, but 10 to 25 MB stay of its work.
  '--no-maglev',
  // The last one waits for 3,000 runs of a function, since the middle one is thought to do meanwhile.
  '--invocation-count-for-turbofan=1000',
];

/** Of a bundle: compiled code lies beside it, where nobody can put another who could not change the bundle itself. */
export function compileCacheOf(program: string): { NODE_COMPILE_CACHE?: string } {
  return program.endsWith('.mjs') ? { NODE_COMPILE_CACHE: join(dirname(program), 'compiled') } : {};
}

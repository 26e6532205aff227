/**
 * Node's options for a worker. Of what passes through one next to nothing is kept, so a young generation as large as V8
 * makes it on a big machine (64 MB and more) is memory that only fills with garbage.
 */
export const NODE_FLAGS: readonly string[] = ['--max-semi-space-size=16'];

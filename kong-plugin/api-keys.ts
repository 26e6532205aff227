import { hash, timingSafeEqual } from 'node:crypto';
import type { ApiKey } from '../mesh/access-policy.ts';

export interface Principal {
  /** `key:<id>`, `jwt:<issuer>#<sub>`, `consumer:<id>` or `anonymous`. */
  principal: string;
  roles: string[];
}

export interface KeyHolder {
  /** The same object for each call by this key: not to be changed. */
  identity: Principal;
  /** Epoch ms. */
  expires: number | undefined;
}

interface Entry extends KeyHolder {
  hash: Buffer;
}

/** A key has 256 random bits in base64url behind `mk_`; longer text is not worth hashing. */
const KEY_CHARS_MAX = 256;
/** Of the key in question; nothing waits between its writing and its reading. */
const presented = Buffer.alloc(32);
const NOBODY: Entry = {
  hash: Buffer.alloc(32),
  identity: { principal: '', roles: [] },
  expires: undefined,
};

/** The holders of API keys by the SHA-256 of the key; a function that finds one, or undefined for a key of nobody's. */
export function createKeyTable(keys: readonly ApiKey[]): (key: string) => KeyHolder | undefined {
  const entries = new Map<string, Entry>();
  for (const { id, hash: stored, roles, expires } of keys) {
    const digest = stored.toString('latin1');
    // Two ids with one key: the first in the file, however often the file is read.
    if (entries.has(digest)) continue;
    entries.set(digest, { hash: stored, identity: { principal: `key:${id}`, roles: [...roles] }, expires });
  }
  return key => {
    if (key.length > KEY_CHARS_MAX) return undefined;
    const digest = hash('sha256', key, 'binary');
    // What the time of the look-up tells is of hashes, which nobody can choose; the comparison tells nothing, and an
    // unknown key goes the same way as a known one.
    const entry = entries.get(digest) ?? NOBODY;
    presented.write(digest, 'latin1');
    return timingSafeEqual(presented, entry.hash) && entry !== NOBODY ? entry : undefined;
  };
}

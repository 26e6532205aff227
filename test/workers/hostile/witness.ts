import assert from 'node:assert/strict';
import type { Client, Json } from './helpers.ts';

/** Everything one client was sent, whatever stream it came by. */
export interface Witness {
  client: Client;
  tag: string;
  seen: Json[];
}

export const methodsOf = ({ seen }: Witness) => seen.map(message => message.method).filter(Boolean);

/** What no client may see at all: the tag of another one. */
export function assertOwnOnly(witnesses: Witness[]): void {
  for (const { tag, seen } of witnesses) {
    const text = JSON.stringify(seen);
    for (const other of witnesses) {
      if (other.tag !== tag)
        assert.ok(!text.includes(other.tag), `${tag} was sent what belongs to ${other.tag}: ${text}`);
    }
  }
}

import { hkdfSync } from 'node:crypto';

const KEY_BYTES = 32;

/**
 * The key that a service's workers and the gateways share: HKDF-SHA-256 (RFC 5869) of a mesh root key, so that a
 * worker that is taken over gives away its own service and no other.
 */
export function deriveServiceKey(rootKey: Buffer, service: string): Buffer {
  return Buffer.from(hkdfSync('sha256', rootKey, 'mcp-mesh', `service:${service}`, KEY_BYTES));
}

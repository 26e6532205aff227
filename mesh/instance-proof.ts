import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { isObject } from './jsonrpc.ts';

/**
 * How an instance proves that it belongs to the mesh, so that whoever merely writes into Consul gets no call: the
 * asker sends a nonce, the instance answers with MACs by its service's keys.
 */

/** Who is asked, and where: all of it is under the MAC. */
export interface InstancePlace {
  /** Service as the registry names it; its key signs. */
  service: string;
  /** In Consul. */
  id: string;
  /** As the worker advertises it, and as the asker connects to it. */
  address: string;
  port: number;
}

/** Body of the answer. Only the MACs count; the rest helps to say what is wrong. */
export interface InstanceProof {
  instance: string;
  address: string;
  port: number;
  /** One for each key the instance holds, base64url. */
  macs: string[];
}

export const PROOF_PATH = '/proof';

/** No other use of a service key begins so (`session`, `state`, `forward`): the route is no oracle for them. */
const LABEL = 'instance-proof';
const NONCE_BYTES = 32;
/** 16 to 64 bytes in base64url. */
const NONCE_PATTERN = /^[A-Za-z0-9_-]{22,86}$/;
const MACS_MAX = 16;

export function createNonce(): string {
  return randomBytes(NONCE_BYTES).toString('base64url');
}

export function isNonce(text: unknown): text is string {
  return typeof text === 'string' && NONCE_PATTERN.test(text);
}

/**
 * The instance's answer. It names its own address: a fake that passes the nonce on to a genuine instance gets a MAC for
 * the genuine one's address, which is not where the fake was asked. There is a MAC by every key, since in a rotation
 * neither side knows which keys the other has already: workers and gateways may be changed in either order.
 */
export function makeProof(keys: readonly Buffer[], nonce: string, place: InstancePlace): InstanceProof {
  const macs = keys.map(key => macOf(key, nonce, place).toString('base64url'));
  return { instance: place.id, address: place.address, port: place.port, macs };
}

/** Why an answer does not prove that the instance at this place holds one of the keys; undefined when it does. */
export function findProofFault(
  answer: unknown,
  keys: readonly Buffer[],
  nonce: string,
  place: InstancePlace,
): string | undefined {
  if (!isObject(answer) || !Array.isArray(answer.macs)) return 'its answer is no proof';
  const macs = answer.macs.slice(0, MACS_MAX).map(mac => Buffer.from(String(mac), 'base64url'));
  for (const key of keys) {
    const wanted = macOf(key, nonce, place);
    if (macs.some(mac => mac.length === wanted.length && timingSafeEqual(mac, wanted))) return undefined;
  }
  // What it says of itself is not proven: it only makes the reason more useful, and is never repeated.
  if (answer.instance !== place.id) return 'another instance answers at its address';
  if (
    canonicalAddress(String(answer.address)) !== canonicalAddress(place.address) ||
    answer.port !== place.port
  ) {
    return 'it is registered under an address that it does not advertise (MESH_ADVERTISE_ADDRESS)';
  }
  return `wrong key: its MESH_SERVICE_KEYS must hold the key of service "${place.service}"`;
}

function macOf(key: Buffer, nonce: string, { service, id, address, port }: InstancePlace): Buffer {
  // Id and address come from Consul on one side; as no genuine part holds a NUL, no others read as the same text.
  const text = [LABEL, service, nonce, id, canonicalAddress(address), port].join('\0');
  return createHmac('sha256', key).update(text).digest();
}

/** One spelling for each address: an IPv6 address has many (RFC 5952), a host name any case. */
function canonicalAddress(address: string): string {
  const url = `http://[${address}]`;
  // A zone id is of this host alone and no part of a URL.
  return isIPv6(address) && URL.canParse(url) ? new URL(url).hostname.slice(1, -1) : address.toLowerCase();
}

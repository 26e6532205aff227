import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { BoundedCache } from './bounded-cache.ts';
import { MeshError } from './errors.ts';
import type { Grants, Limits } from './grants.ts';
import { HEADERS } from './names.ts';

/** What the gateway tells a worker of the caller: who it is and what it may do in this one service. */
export interface Identity {
  /** Principal: `key:<id>`, `jwt:<issuer>#<sub>`, `consumer:<id>` or `anonymous`. */
  sub: string;
  roles: string[];
  /** Service that the token is good for. */
  svc: string;
  grants: Grants;
  limits: Limits;
  policy_version: string;
  /** Seconds since the epoch. */
  iat: number;
  /** Seconds since the epoch, at most 60 after `iat`. */
  exp: number;
}

/** Makes a token, or hands out the one that it made for an equal identity in the last 30 s. */
export type SignIdentity = (claims: Omit<Identity, 'iat' | 'exp'>) => string;

/**
 * The identity in a token; the same frozen object for the same token.
 * @throws MeshError `unauthenticated` (the answer carries IDENTITY_CHALLENGE)
 */
export type VerifyIdentity = (token: string | string[] | undefined) => Identity;

/** `WWW-Authenticate` of a worker's 401 (RFC 9110 §11.6.1): no scheme that a caller's own client would try to serve. */
export const IDENTITY_CHALLENGE = 'Mesh-Identity realm="mcp-mesh worker"';
/** Characters of a token: Node takes 16 KB of headers in all, and the caller's own come along. */
export const IDENTITY_MAX = 8192;

const LIFETIME_S = 60;
/** Half of its life is left when a token is handed out the last time: the worker's clock may be that much ahead. */
const REUSE_MS = 30_000;
/** How far a worker's clock may be behind the gateway's. */
const SKEW_S = 5;
const SIGN_CACHE_BYTES = 32 * 1024 * 1024;
const VERIFY_CACHE_BYTES = 16 * 1024 * 1024;
/** Measured with 100,000 entries (test/bench/identity.ts): a map slot, objects, string headers. */
const SIGNED_OVERHEAD_BYTES = 300;
/** Measured likewise: parsed claims, per character of the token and per token. */
const PARSED_BYTES_PER_CHARACTER = 4;
const PARSED_OVERHEAD_BYTES = 600;
const KEY_TEXT = /^[A-Za-z0-9_-]{43}=?$/;

const names = z.array(z.string()).optional();
/** Strict: to a worker that drops a member it does not know, a rule that names nothing else covers everything. */
const rules = z.array(z.strictObject({ tools: names, prompts: names, resources: names }));
const amount = z.number().nonnegative();
const claimsSchema = z.object({
  sub: z.string().min(1),
  roles: z.array(z.string()),
  svc: z.string(),
  grants: z.strictObject({ allow: rules, deny: rules }),
  limits: z.strictObject({
    rate: z.strictObject({ requests: amount, windowS: amount }).optional(),
    inFlight: amount.optional(),
    quota: z.strictObject({ calls: amount, period: z.enum(['day', 'month']) }).optional(),
    toolRates: z.array(z.strictObject({ pattern: z.string(), calls: amount, windowS: amount })).optional(),
  }),
  policy_version: z.string(),
  iat: z.int(),
  exp: z.int(),
});

/**
 * Signs identities as compact JWS (RFC 7515) with Ed25519 (RFC 8037). A signature takes 25 µs: equal claims get the
 * same token for 30 s. The cache is bounded in bytes.
 * @throws Error when a token would be longer than IDENTITY_MAX
 */
export function createSigner({
  privateKey,
  now = Date.now,
}: {
  privateKey: KeyObject;
  /** Milliseconds since the epoch. */
  now?: () => number;
}): SignIdentity {
  const header = headerOf(createPublicKey(privateKey));
  const cache = new BoundedCache<string, { token: string; signedAt: number; grants: Grants; limits: Limits }>(
    SIGN_CACHE_BYTES,
  );
  return claims => {
    const { sub, svc, roles, policy_version, grants, limits } = claims;
    // As JSON: a subject is the identity provider's text and must not pass for another's key.
    const key = JSON.stringify([sub, svc, policy_version, roles]);
    const known = cache.get(key);
    const at = now();
    // A clock that was set back must not leave tokens of the future in use.
    if (known && at >= known.signedAt && at < known.signedAt + REUSE_MS) {
      if (isSame(known.grants, grants) && isSame(known.limits, limits)) return known.token;
    }
    const iat = Math.floor(at / 1000);
    const payload = encode({ sub, roles, svc, grants, limits, policy_version, iat, exp: iat + LIFETIME_S });
    const signed = `${header}.${payload}`;
    const token = `${signed}.${sign(null, Buffer.from(signed), privateKey).toString('base64url')}`;
    if (token.length > IDENTITY_MAX) {
      const cure = 'write fewer or shorter rules for these roles in access.yaml';
      throw new Error(
        `the identity of ${sub.slice(0, 64)} for ${svc} has ${token.length} characters, more than ${IDENTITY_MAX}; ${cure}`,
      );
    }
    const weight = token.length + 2 * key.length + SIGNED_OVERHEAD_BYTES;
    cache.set(key, { token, signedAt: at, grants, limits }, weight);
    return token;
  };
}

/**
 * Verifies identities for one service. The header must be letter for letter the one that our signer writes for one of
 * the keys: no other algorithm, type or key, and nothing to parse, before the signature is known to be good.
 * Verified tokens are kept until they expire, bounded in bytes.
 */
export function createVerifier({
  publicKeys,
  service,
  now = Date.now,
}: {
  /** Newest first; any of them is good, so keys can be rotated. */
  publicKeys: readonly KeyObject[];
  service: string;
  /** Milliseconds since the epoch. */
  now?: () => number;
}): VerifyIdentity {
  if (publicKeys.length === 0) throw new Error('there is no identity key; set MESH_IDENTITY_PUBLIC_KEYS');
  const keys = new Map(publicKeys.map(key => [headerOf(key), key]));
  const cache = new BoundedCache<string, Identity>(VERIFY_CACHE_BYTES);
  return token => {
    if (token === undefined || token === '') throw refused('is missing: call through the gateway');
    if (typeof token !== 'string') throw refused('is there more than once');
    if (token.length > IDENTITY_MAX) throw refused(`has more than ${IDENTITY_MAX} characters`);
    const known = cache.get(token);
    const identity = known ?? readClaims(verifiedPayload(token, keys));
    if (identity.svc !== service) throw refused('is for another service');
    checkTimes(identity, now() / 1000);
    if (!known) {
      cache.set(token, identity, token.length * PARSED_BYTES_PER_CHARACTER + PARSED_OVERHEAD_BYTES);
    }
    return identity;
  };
}

/** Reads MESH_IDENTITY_PRIVATE_KEY. @throws Error unless it is a seed of 32 bytes in base64url (RFC 8037 §2, `d`) */
export function parsePrivateKey(seed: string): KeyObject {
  // RFC 8410 §7: the fixed start of a PKCS #8 document that ends with the seed.
  const prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
  const der = Buffer.concat([prefix, keyBytes(seed, 'MESH_IDENTITY_PRIVATE_KEY')]);
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
}

/** Reads one of MESH_IDENTITY_PUBLIC_KEYS. @throws Error unless it is 32 bytes in base64url (RFC 8037 §2, `x`) */
export function parsePublicKey(text: string): KeyObject {
  const x = keyBytes(text, 'MESH_IDENTITY_PUBLIC_KEYS').toString('base64url');
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
}

/** What workers get to verify with, as MESH_IDENTITY_PUBLIC_KEYS has it: 32 bytes in base64url. */
export function publicKeyOf(privateKey: KeyObject): string {
  return rawPublicKey(createPublicKey(privateKey));
}

/** The payload's bytes, known to be signed by one of the keys. */
function verifiedPayload(token: string, keys: ReadonlyMap<string, KeyObject>): Buffer {
  const [header = '', payload = '', signature = '', ...rest] = token.split('.');
  if (payload === '' || signature === '' || rest.length > 0) throw refused('is no compact JWS');
  const key = keys.get(header);
  if (!key) throw refused('is not of a key of this mesh (MESH_IDENTITY_PUBLIC_KEYS)');
  const bytes = Buffer.from(signature, 'base64url');
  // Node decodes leniently: one token could be spelled in endless ways, each of which would push out a cached one.
  if (bytes.toString('base64url') !== signature) throw refused('is no compact JWS');
  if (!verify(null, Buffer.from(`${header}.${payload}`), key, bytes)) throw refused('has a wrong signature');
  return Buffer.from(payload, 'base64url');
}

/** The signature was good: what is wrong here was made by a gateway of another version. */
function readClaims(payload: Buffer): Identity {
  let json: unknown;
  try {
    json = JSON.parse(payload.toString());
  } catch {
    throw refused('has claims that are not JSON');
  }
  const { data, error } = claimsSchema.safeParse(json);
  if (!data) {
    const at = error?.issues[0]?.path.join('.') ?? '';
    throw refused(`has claims of another version${at && ` (${at})`}: gateway and worker must fit`);
  }
  // The schema's optional members may be undefined to TypeScript; from JSON they never are.
  return deepFreeze(data) as Identity;
}

function checkTimes({ iat, exp }: Identity, now: number): void {
  const clocks = 'compare the clocks of gateway and worker';
  if (exp <= now) throw refused(`has expired: ${clocks}`);
  if (iat > now + SKEW_S) throw refused(`is from the future: ${clocks}`);
  if (exp > iat + LIFETIME_S) throw refused(`lives longer than ${LIFETIME_S} s`);
}

function refused(what: string): MeshError {
  return new MeshError('unauthenticated', { detail: `${HEADERS.identity} ${what}` });
}

/** Encoded JOSE header: explicit type (RFC 8725 §3.11), `kid` = thumbprint of the key (RFC 7638, RFC 8037 A.3). */
function headerOf(publicKey: KeyObject): string {
  const jwk = `{"crv":"Ed25519","kty":"OKP","x":"${rawPublicKey(publicKey)}"}`;
  const kid = createHash('sha256').update(jwk).digest('base64url');
  return encode({ alg: 'EdDSA', typ: 'mesh-identity+jwt', kid });
}

function rawPublicKey(publicKey: KeyObject): string {
  const { crv, x } = publicKey.export({ format: 'jwk' });
  if (crv !== 'Ed25519' || x === undefined) throw new Error('an identity key must be an Ed25519 key');
  return x;
}

function keyBytes(text: string, setting: string): Buffer {
  if (!KEY_TEXT.test(text)) {
    throw new Error(
      `${setting}: a key must be 32 bytes in base64url (43 characters); mesh keys init makes one`,
    );
  }
  return Buffer.from(text, 'base64url');
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/** The policy hands out the same object again and again; a copy of it says the same. */
function isSame(one: object, other: object): boolean {
  return one === other || isDeepStrictEqual(one, other);
}

/** Many requests share one identity: what one of them changed, all would have. */
function deepFreeze<T extends object>(value: T): T {
  for (const member of Object.values(value)) {
    if (typeof member === 'object' && member !== null) deepFreeze(member as object);
  }
  return Object.freeze(value);
}

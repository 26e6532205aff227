import { hash } from 'node:crypto';
import {
  createLocalJWKSet,
  decodeJwt,
  errors,
  type JSONWebKeySet,
  type JWTPayload,
  type JWTVerifyResult,
  jwtVerify,
} from 'jose';
import type { AccessPolicy, JwtIssuer } from '../mesh/access-policy.ts';
import { BoundedCache } from '../mesh/bounded-cache.ts';
import { isObject } from '../mesh/jsonrpc.ts';
import type { Principal } from './api-keys.ts';
import { AuthenticationError } from './resource-metadata.ts';

export interface TokenVerifier {
  /**
   * Who the token names, with the roles of the policy that it gives; the same object while the token is cached.
   * @throws AuthenticationError `bad_token`, `expired_token`, `no_issuer_keys`
   */
  verify(token: string, service: string | undefined): Principal | Promise<Principal>;
  /** Whether the token claims to be of one of our issuers; nothing is verified. */
  isOurs(token: string): boolean;
}

interface KeySets {
  of(issuer: JwtIssuer): KeySet;
  /** Forgets the keys of all other issuers. */
  retain(issuers: readonly JwtIssuer[]): void;
  /** Fetches that failed since the start. */
  failures: number;
}

type PublicKeys = ReturnType<typeof createLocalJWKSet>;

interface KeySet {
  /** The issuer's keys. @throws AuthenticationError `no_issuer_keys` when there are none, or only too old ones */
  current(): Promise<PublicKeys>;
  /** Asks the issuer again, unless that was done a moment ago; true when there are other keys than `seen` now. */
  renew(seen: PublicKeys): Promise<boolean>;
}

type KeySetOptions = { now(): number; log(message: string): void };

interface Verified {
  identity: Principal;
  issuer: JwtIssuer;
  audiences: readonly string[];
  /** Epoch ms. */
  until: number;
}

const TOKEN_CHARS_MAX = 8192;
const TOKEN_PATTERN = /^[\w-]+\.[\w-]+\.[\w-]*$/;
const SKEW_S = 60;
/** How long a withdrawn key or a changed mind of the issuer's may go unnoticed. */
const CACHED_MS = 300_000;
/** A verified token takes 0.8 KB (measured). */
const CACHED_MAX = 10_000;
const SUBJECT_PATTERN = /^[^\p{Cc}\p{Cs}\u2028\u2029]{1,255}$/u;
/** Signatures by a private key only: whoever knows a public key must not be able to make one. */
const ALGORITHM_PATTERN = /^(?:[RPE]S(?:256|384|512)|EdDSA|Ed25519)$/;
/** RFC 8725 §3.11: no logout token, no DPoP proof, nothing else that an issuer signs. */
const TYPES = new Set(['jwt', 'at+jwt', 'application/at+jwt', 'application/jwt']);
const JWKS_FRESH_MS = 600_000;
const JWKS_KEPT_MS = 86_400_000;
/** Any caller can name an unknown key: each is worth one question to the issuer in this time. */
const JWKS_COOLDOWN_MS = 10_000;
const JWKS_TIMEOUT_MS = 5000;
const JWKS_BYTES_MAX = 262_144;
const LOOPBACK_PATTERN = /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/;

/** What jose found, in words for the caller; anything else is a token that cannot be read. */
const FAULTS: Readonly<Record<string, string>> = {
  ERR_JOSE_ALG_NOT_ALLOWED: 'its algorithm is not accepted',
  ERR_JOSE_NOT_SUPPORTED: 'its algorithm or an extension (crit) is not supported',
  ERR_JWKS_NO_MATCHING_KEY: 'the issuer has no such key',
  ERR_JWKS_MULTIPLE_MATCHING_KEYS: 'it names no key (kid), and the issuer has several',
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: 'its signature is wrong',
};
/** What other keys of the issuer's may cure; the second for tokens that name no key. */
const ROTATED = new Set(['ERR_JWKS_NO_MATCHING_KEY', 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED']);

/** Verifies access tokens by one policy (RFC 7519, RFC 8725, RFC 9068); what it has verified it keeps for a while. */
export function createTokenVerifier(
  policy: AccessPolicy,
  { keySets, now }: { keySets: KeySets; now(): number },
): TokenVerifier {
  const issuers = new Map(policy.issuers.map(issuer => [issuer.issuer, issuer]));
  const verified = new BoundedCache<string, Verified>(CACHED_MAX);

  const check = async (token: string): Promise<Verified> => {
    if (!TOKEN_PATTERN.test(token)) throw badToken('it is no signed token (JWS)');
    const issuer = issuers.get(claimedIssuer(token));
    if (!issuer) throw badToken('its issuer is not accepted');
    const keySet = keySets.of(issuer);
    const keys = await keySet.current();
    try {
      const result = await checkSignature(token, issuer, keys, now()).catch(async fault => {
        if (!ROTATED.has(fault?.code) || !(await keySet.renew(keys))) throw fault;
        return checkSignature(token, issuer, await keySet.current(), now());
      });
      return readClaims(result, issuer, policy, now());
    } catch (fault) {
      throw tokenFault(fault);
    }
  };

  return {
    verify(token, service) {
      if (token.length > TOKEN_CHARS_MAX) throw badToken(`it is longer than ${TOKEN_CHARS_MAX} characters`);
      const digest = hash('sha256', token, 'binary');
      const known = verified.get(digest);
      // A cached token may come back for another service.
      if (known && known.until > now()) return identityFor(known, service);
      return check(token).then(found => {
        verified.set(digest, found);
        return identityFor(found, service);
      });
    },
    isOurs: token => token.length <= TOKEN_CHARS_MAX && issuers.has(claimedIssuer(token)),
  };
}

/** The issuers' keys; they outlive a change of the policy, so that one during an outage locks nobody out. */
export function createKeySets(options: KeySetOptions): KeySets {
  const sets = new Map<string, KeySet>();
  const nameOf = ({ issuer, jwksUri }: JwtIssuer) => `${issuer} ${jwksUri}`;
  return {
    failures: 0,
    of(issuer) {
      const known = sets.get(nameOf(issuer));
      if (known) return known;
      const made = createKeySet(issuer, options, () => {
        this.failures += 1;
      });
      sets.set(nameOf(issuer), made);
      return made;
    },
    retain(issuers) {
      const wanted = new Set(issuers.map(nameOf));
      for (const name of sets.keys()) if (!wanted.has(name)) sets.delete(name);
    },
  };
}

/**
 * Not jose's createRemoteJWKSet: that one forgets the keys when the issuer is away, asks anew for each unknown key
 * while it is, and reads an answer of any size.
 */
function createKeySet(
  { issuer, jwksUri }: JwtIssuer,
  { now, log }: KeySetOptions,
  onFailure: () => void,
): KeySet {
  let keys: PublicKeys | undefined;
  let text = '';
  let fetchedAt = -Infinity;
  let triedAt = -Infinity;
  let failing = false;
  let pending: Promise<void> | undefined;

  const fetchOnce = async () => {
    try {
      const fetched = await fetchKeys(jwksUri);
      // The same keys stay the same object: jose has them imported.
      if (!keys || fetched !== text) keys = createLocalJWKSet(JSON.parse(fetched) as JSONWebKeySet);
      text = fetched;
      fetchedAt = now();
      if (failing) log(`keys of ${issuer} are read again`);
      failing = false;
    } catch (fault) {
      onFailure();
      const { message, cause } = fault as Error & { cause?: { code?: string } };
      const outcome = keys ? 'the last ones stay in use' : 'its tokens are refused until then';
      const why = `${message} ${cause?.code ?? ''} (jwks_uri in access.yaml)`.replace(/\p{Cc}/gu, ' ');
      if (!failing) log(`keys of ${issuer} cannot be read, ${outcome}: ${why}`);
      failing = true;
    }
  };
  const refresh = (): Promise<void> => {
    if (pending) return pending;
    if (now() - triedAt < JWKS_COOLDOWN_MS) return Promise.resolve();
    triedAt = now();
    pending = fetchOnce().finally(() => {
      pending = undefined;
    });
    return pending;
  };

  return {
    async current() {
      const age = now() - fetchedAt;
      if (keys && age < JWKS_FRESH_MS) return keys;
      const refreshed = refresh();
      // While the old keys do, only the first call of an outage waits for its time limit.
      if (!failing || age >= JWKS_KEPT_MS) await refreshed;
      if (keys && now() - fetchedAt < JWKS_KEPT_MS) return keys;
      const detail = `the keys of ${issuer} cannot be fetched`;
      throw new AuthenticationError('no_issuer_keys', detail, { retryAfterMs: JWKS_COOLDOWN_MS });
    },
    async renew(seen) {
      await refresh();
      return keys !== seen;
    },
  };
}

/** No redirects: the policy names the place, and whoever answers there must not send us elsewhere. */
async function fetchKeys(uri: string): Promise<string> {
  const url = new URL(uri);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && LOOPBACK_PATTERN.test(url.hostname)))
    throw new Error('it must be https, or http on loopback');
  const response = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(JWKS_TIMEOUT_MS) });
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`status ${response.status} instead of 200`);
  }
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > JWKS_BYTES_MAX) throw new Error(`longer than ${JWKS_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function checkSignature(token: string, issuer: JwtIssuer, keys: PublicKeys, now: number) {
  return jwtVerify(token, keys, {
    issuer: issuer.issuer,
    algorithms: issuer.algorithms.filter(name => ALGORITHM_PATTERN.test(name)),
    clockTolerance: SKEW_S,
    currentDate: new Date(now),
    requiredClaims: ['sub', 'aud', 'exp'],
  });
}

function readClaims(
  { payload, protectedHeader: { typ } }: JWTVerifyResult,
  issuer: JwtIssuer,
  policy: AccessPolicy,
  now: number,
): Verified {
  if (typ !== undefined && !TYPES.has(typ.toLowerCase())) throw badToken('it is no access token (typ)');
  // RFC 7800: a proof of possession belongs to it, which nobody asks for here.
  if (payload.cnf !== undefined) throw badToken('it is bound to a key (cnf), which is not supported');
  const { sub, aud, exp = 0 } = payload;
  if (typeof sub !== 'string' || !SUBJECT_PATTERN.test(sub)) throw badToken('its subject cannot be used');
  const roles = claimedRoles(payload, issuer.rolesClaim).filter(name => policy.roles.has(name));
  return {
    identity: { principal: `jwt:${issuer.issuer}#${sub}`, roles: [...new Set(roles)] },
    issuer,
    audiences: [aud ?? []].flat(),
    until: Math.min(now + CACHED_MS, (exp + SKEW_S) * 1000),
  };
}

/** The claim by its name (a namespaced one has dots of its own), else by the path that its dots are. */
function claimedRoles(payload: JWTPayload, claim: string): string[] {
  const path = Object.hasOwn(payload, claim) ? [claim] : claim.split('.');
  let value: unknown = payload;
  for (const name of path) value = isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined;
  if (typeof value === 'string') return value.split(' ');
  return Array.isArray(value) ? value.filter(role => typeof role === 'string') : [];
}

/** RFC 8707: the token is for this service, or for all of the mesh. */
function identityFor({ identity, audiences, issuer }: Verified, service: string | undefined): Principal {
  if (audiences.includes(issuer.audience)) return identity;
  const wanted = service === undefined ? issuer.audience : `${issuer.audience}/${service}`;
  if (!audiences.includes(wanted)) throw badToken(`it is not for ${wanted}`);
  return identity;
}

/** Not verified, and perhaps no text: good for looking it up. */
function claimedIssuer(token: string): string {
  try {
    return decodeJwt(token).iss ?? '';
  } catch {
    return '';
  }
}

function tokenFault(fault: unknown): AuthenticationError {
  if (fault instanceof AuthenticationError) return fault;
  if (fault instanceof errors.JWTExpired)
    return new AuthenticationError('expired_token', 'the token has expired');
  if (fault instanceof errors.JWTClaimValidationFailed) {
    const early = fault.claim === 'nbf' && fault.reason === 'check_failed';
    return badToken(early ? 'it is not valid yet' : `its claim ${fault.claim} is missing or wrong`, fault);
  }
  const code = fault instanceof errors.JOSEError ? fault.code : '';
  return badToken(FAULTS[code] ?? 'it cannot be read', fault);
}

function badToken(detail: string, cause?: unknown): AuthenticationError {
  return new AuthenticationError('bad_token', `the token is refused: ${detail}`, { cause });
}

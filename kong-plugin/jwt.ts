import { hash } from 'node:crypto';
import { decodeJwt, errors, type JWTPayload, type JWTVerifyResult, jwtVerify } from 'jose';
import type { AccessPolicy, JwtIssuer } from '../mesh/access-policy.ts';
import { BoundedCache } from '../mesh/bounded-cache.ts';
import { isObject } from '../mesh/jsonrpc.ts';
import type { Principal } from './api-keys.ts';
import type { KeySets, PublicKeys } from './jwks.ts';
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

import { createLocalJWKSet, type JSONWebKeySet } from 'jose';
import type { JwtIssuer } from '../mesh/access-policy.ts';
import { readBounded } from '../mesh/bounded-body.ts';
import { AuthenticationError } from './resource-metadata.ts';

export interface KeySets {
  of(issuer: JwtIssuer): KeySet;
  /** Forgets the keys of all other issuers. */
  retain(issuers: readonly JwtIssuer[]): void;
  /** Fetches that failed since the start. */
  failures: number;
}

export type PublicKeys = ReturnType<typeof createLocalJWKSet>;

interface KeySet {
  /** The issuer's keys. @throws AuthenticationError `no_issuer_keys` when there are none, or only too old ones */
  current(): Promise<PublicKeys>;
  /** Asks the issuer again, unless that was done a moment ago; true when there are other keys than `seen` now. */
  renew(seen: PublicKeys): Promise<boolean>;
}

type KeySetOptions = { now(): number; log(message: string): void };

const JWKS_FRESH_MS = 600_000;
const JWKS_KEPT_MS = 86_400_000;
/** Any caller can name an unknown key: each is worth one question to the issuer in this time. */
const JWKS_COOLDOWN_MS = 10_000;
const JWKS_TIMEOUT_MS = 5000;
const JWKS_BYTES_MAX = 262_144;
const LOOPBACK_PATTERN = /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/;

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
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`status ${response.status} instead of 200`);
  }
  const text = await readBounded(response.body ?? [], JWKS_BYTES_MAX);
  if (text === undefined) throw new Error(`longer than ${JWKS_BYTES_MAX} bytes`);
  return text;
}

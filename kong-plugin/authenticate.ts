import type { AccessPolicy } from '../mesh/access-policy.ts';
import { createKeyTable, type Principal } from './api-keys.ts';
import { createKeySets } from './jwks.ts';
import { createTokenVerifier } from './jwt.ts';
import { AuthenticationError, resourceUri } from './resource-metadata.ts';

export interface Authenticator {
  /**
   * Who sends these headers (lower-case names; of a repeated header an array, so that a second credential is seen).
   * The answer is shared between calls: it is not to be changed.
   * @throws AuthenticationError (401; 400 when the request carries several credentials)
   */
  authenticate(headers: RequestHeaders, service: string | undefined): Promise<Principal>;
  /** Fetches of issuers' keys that failed since the start. */
  readonly jwksFailures: number;
}

export type RequestHeaders = Readonly<Record<string, string | readonly string[] | undefined>>;

interface AuthenticatorOptions {
  /** The policy in force, undefined when there is none; a changed policy is another object. */
  policy(): AccessPolicy | undefined;
  /** URL by which callers reach the gateway; only to warn when no token can be for it. */
  publicUrl?: string | undefined;
  /**
   * Whether Kong's own authentication plugins say who calls. The `x-consumer-*` headers must then be read after they
   * ran and none of a client's may be among them.
   */
  kongConsumers: boolean;
  now?(): number;
  log(message: string): void;
}

/** What one policy makes of credentials; made anew when the policy changes, so that nothing of the old one stays. */
type Judge = ReturnType<typeof createJudge>;

const BEARER_PATTERN = /^bearer +/i;
const KEY_PREFIX = 'mk_';
const CONSUMER_ID_PATTERN = /^[\x21-\x7e]{1,128}$/;

/** Made once: recording a stack would make a wrong key ten times as dear as a right one. */
const NO_POLICY = refusal(
  'no_policy',
  'the gateway has no access policy: set MESH_ACCESS_POLICY to the path of an access.yaml that can be read',
);
const NO_CREDENTIAL = refusal(
  'no_credential',
  'send an API key (x-api-key, or authorization: Bearer mk_…) or a token (authorization: Bearer …)',
);
const UNSUPPORTED = refusal('unsupported', 'authorization is not "Bearer" with an API key or a token');
const BAD_KEY = refusal('bad_key', 'the API key is not valid');
const EXPIRED_KEY = refusal('expired_key', 'the API key has expired: ask for another');
const AMBIGUOUS = refusal('ambiguous', 'the request carries several credentials: send exactly one');

/**
 * Tells who calls, by API key, by token, or by what Kong's own plugins found out.
 * @throws TypeError when `publicUrl` is no URL
 */
export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { policy, publicUrl, kongConsumers, log, now = Date.now } = options;
  const resource = publicUrl === undefined ? undefined : resourceUri(publicUrl, undefined);
  const keySets = createKeySets({ now, log });
  let judge: Judge | undefined;

  const judgeOf = (current: AccessPolicy): Judge => {
    if (judge && judge.policy === current) return judge;
    keySets.retain(current.issuers);
    if (resource !== undefined) warnOfAudiences(current, resource, log);
    const made = createJudge(current, createTokenVerifier(current, { keySets, now }), now);
    judge = made;
    return made;
  };

  return {
    get jwksFailures() {
      return keySets.failures;
    },
    async authenticate(headers, service) {
      const current = policy();
      if (!current) throw NO_POLICY;
      const { byConsumer, byCredential } = judgeOf(current);
      const bearer = bearerOf(headers.authorization);
      const key = single(headers['x-api-key']);
      if (kongConsumers) {
        const consumer = byConsumer(headers, bearer, key);
        if (consumer) return consumer;
      }
      if (bearer !== undefined && key !== undefined && bearer !== key) throw AMBIGUOUS;
      if (bearer === '') throw UNSUPPORTED;
      return byCredential(bearer, key, service);
    },
  };
}

function createJudge(
  policy: AccessPolicy,
  tokens: ReturnType<typeof createTokenVerifier>,
  now: () => number,
) {
  const findKey = createKeyTable(policy.apiKeys);
  const anonymous: Principal | undefined =
    policy.anonymous === null ? undefined : { principal: 'anonymous', roles: [policy.anonymous] };

  const byKey = (key: string): Principal => {
    const holder = findKey(key);
    if (!holder) throw BAD_KEY;
    // Told to whoever has the right key, and to nobody else.
    if (holder.expires !== undefined && holder.expires <= now()) throw EXPIRED_KEY;
    return holder.identity;
  };

  return {
    policy,
    /** A credential that is there and wrong is refused, never taken for none. */
    byCredential(
      bearer: string | undefined,
      key: string | undefined,
      service: string | undefined,
    ): Principal | Promise<Principal> {
      if (key !== undefined) return byKey(key);
      if (bearer?.startsWith(KEY_PREFIX)) return byKey(bearer);
      if (bearer !== undefined) return tokens.verify(bearer, service);
      if (anonymous) return anonymous;
      throw NO_CREDENTIAL;
    },
    /**
     * The consumer that Kong's plugins found, undefined when they found none. Which credential they read is theirs to
     * know; one of ours beside it would be a second caller.
     */
    byConsumer(
      headers: RequestHeaders,
      bearer: string | undefined,
      key: string | undefined,
    ): Principal | undefined {
      const id = single(headers['x-consumer-id']);
      if (id === undefined || single(headers['x-anonymous-consumer']) === 'true') return undefined;
      if (!CONSUMER_ID_PATTERN.test(id)) throw UNSUPPORTED;
      const isOurKey = (text = '') => text.startsWith(KEY_PREFIX) || findKey(text) !== undefined;
      if (isOurKey(bearer) || isOurKey(key) || (bearer && tokens.isOurs(bearer))) throw AMBIGUOUS;
      const groups = (single(headers['x-consumer-groups']) ?? '').split(',').map(name => name.trim());
      return {
        principal: `consumer:${id}`,
        roles: [...new Set(groups)].filter(name => policy.roles.has(name)),
      };
    },
  };
}

/** The text behind `Bearer`; empty when the header is there and says something else. */
function bearerOf(header: string | readonly string[] | undefined): string | undefined {
  const text = single(header);
  if (text === undefined) return undefined;
  const scheme = BEARER_PATTERN.exec(text)?.[0];
  return scheme === undefined ? '' : text.slice(scheme.length).trimEnd();
}

/** Of a header that came twice the gateway would read one and another program the other. */
function single(header: string | readonly string[] | undefined): string | undefined {
  if (typeof header === 'string' || header === undefined) return header;
  if (header.length > 1) throw AMBIGUOUS;
  return header[0];
}

/** Clients ask their issuer for a token by the URL of the service (RFC 8707): it must be the audience. */
function warnOfAudiences({ issuers }: AccessPolicy, resource: string, log: (message: string) => void): void {
  for (const { issuer, audience } of issuers) {
    if (!/^https?:/.test(audience) || audience === resource) continue;
    log(
      `tokens of ${issuer} must be for ${audience} (audience in access.yaml), but clients ask for ${resource}`,
    );
  }
}

function refusal(
  ...[reason, detail]: ConstructorParameters<typeof AuthenticationError>
): AuthenticationError {
  return Object.freeze(new AuthenticationError(reason, detail));
}

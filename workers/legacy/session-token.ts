import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto';
import { BoundedCache } from '../../mesh/bounded-cache.ts';
import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import type { ClientProfile } from '../connection.ts';

/** What a session id says: enough for any worker to serve the session. */
export interface SessionClaims extends ClientProfile {
  /** Unique among all sessions. */
  id: string;
  principal: string;
}

export interface SessionTokens {
  /** A new session's id (`Mcp-Session-Id`). */
  mint(client: ClientProfile, principal: string): { token: string; claims: SessionClaims };
  /**
   * The claims of a token that one of this service's workers minted for this principal, else undefined. They are shared
   * between calls: not to be changed.
   */
  read(token: string, principal: string): SessionClaims | undefined;
}

interface Dated {
  claims: SessionClaims;
  /** Seconds since the epoch. */
  mintedAt: number;
}

interface SessionTokensOptions {
  /** Sign with the first, accept any: rotation adds the new key in front and drops the last one later. */
  keys: readonly Buffer[];
  service: string;
  /** Short name of this instance (`ownerHash`), so that gateways can prefer it; known once it listens. */
  owner(): string;
  /** Milliseconds since the epoch. */
  now?: () => number;
}

const MAC_BYTES = 16;
const ID_BYTES = 12;
const TOKEN_MAX = 2048;
const NAME_MAX = 64;
/** Long: most clients do not initialize again on 404, so an early end strands them. */
const LIFETIME_S = 7 * 24 * 3600;
/** Tokens that were read lately: a MAC costs more than the rest of the way of a small call. About 1 KB each. */
const KNOWN_MAX = 4096;
/** The capabilities of a client that change what a server may ask it, as a token carries them. */
const CAPABILITIES: Readonly<Record<string, readonly string[]>> = {
  elicitation: ['form', 'url'],
  sampling: ['tools', 'context'],
  roots: ['listChanged'],
};

/**
 * Legacy sessions as signed tokens `<owner>.<payload>.<mac>`: any worker of the service can serve them, none has to
 * remember them, nobody can make one up, and one principal's is unknown to another. HMAC-SHA-256, cut to 128 bits
 * (RFC 2104 §5).
 */
export function createSessionTokens({
  keys,
  service,
  owner,
  now = Date.now,
}: SessionTokensOptions): SessionTokens {
  const secrets = keys.map(key => createSecretKey(key));
  const [signingKey] = secrets;
  if (!signingKey) throw new Error('sessions need at least one service key');
  const known = new BoundedCache<string, Dated>(KNOWN_MAX);
  const seconds = () => Math.floor(now() / 1000);
  const mac = (key: KeyObject, signed: string, principal: string) => {
    const text = ['session', service, principal, signed].join('\0');
    return createHmac('sha256', key).update(text).digest().subarray(0, MAC_BYTES);
  };
  const verify = (token: string, principal: string): Dated | undefined => {
    if (token.length > TOKEN_MAX) return undefined;
    const dot = token.lastIndexOf('.');
    const signed = token.slice(0, dot);
    const given = Buffer.from(token.slice(dot + 1), 'base64url');
    if (given.length !== MAC_BYTES) return undefined;
    if (!secrets.some(key => timingSafeEqual(mac(key, signed, principal), given))) return undefined;
    return readPayload(signed.slice(signed.indexOf('.') + 1), principal);
  };

  return {
    mint(client, principal) {
      const id = randomBytes(ID_BYTES).toString('base64url');
      const { name, version } = client.clientInfo;
      const payload = {
        i: id,
        v: client.protocolVersion,
        t: seconds(),
        c: knownCapabilities(client.capabilities),
        n: [String(name ?? '').slice(0, NAME_MAX), String(version ?? '').slice(0, NAME_MAX)],
      };
      const signed = `${owner()}.${Buffer.from(JSON.stringify(payload)).toString('base64url')}`;
      const token = `${signed}.${mac(signingKey, signed, principal).toString('base64url')}`;
      return { token, claims: { ...client, id, principal } };
    },
    read(token, principal) {
      let dated = known.get(token);
      // A token is one principal's: somebody else's is as unknown as one that nobody minted.
      if (dated?.claims.principal !== principal) {
        dated = verify(token, principal);
        if (dated) known.set(token, dated);
      }
      return dated && seconds() - dated.mintedAt <= LIFETIME_S ? dated.claims : undefined;
    },
  };
}

/** The MAC has been checked: what is wrong here is a payload of another version of ours. */
function readPayload(text: string, principal: string): Dated | undefined {
  const payload: unknown = JSON.parse(Buffer.from(text, 'base64url').toString());
  if (!isObject(payload) || typeof payload.i !== 'string' || typeof payload.v !== 'string') return undefined;
  if (typeof payload.t !== 'number') return undefined;
  const [name, version] = Array.isArray(payload.n) ? payload.n : [];
  const claims = {
    id: payload.i,
    protocolVersion: payload.v,
    capabilities: isObject(payload.c) ? payload.c : {},
    clientInfo: { name, version },
    principal,
  };
  return { claims, mintedAt: payload.t };
}

function knownCapabilities(capabilities: JsonObject): JsonObject {
  const known: JsonObject = {};
  for (const [name, parts] of Object.entries(CAPABILITIES)) {
    const declared = capabilities[name];
    if (!isObject(declared)) continue;
    // Presence alone: what else a client says there is as long as it likes, and would stand in every header.
    const present = parts.filter(part => declared[part] !== undefined);
    known[name] = Object.fromEntries(present.map(part => [part, declared[part] === true ? true : {}]));
  }
  return known;
}

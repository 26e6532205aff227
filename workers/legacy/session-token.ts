import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
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
  /** The claims of a token that one of this service's workers minted for this principal, else undefined. */
  read(token: string, principal: string): SessionClaims | undefined;
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
  const [signingKey] = keys;
  if (!signingKey) throw new Error('sessions need at least one service key');
  const seconds = () => Math.floor(now() / 1000);
  const mac = (key: Buffer, signed: string, principal: string) => {
    const text = ['session', service, principal, signed].join('\0');
    return createHmac('sha256', key).update(text).digest().subarray(0, MAC_BYTES);
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
      if (token.length > TOKEN_MAX) return undefined;
      const dot = token.lastIndexOf('.');
      const signed = token.slice(0, dot);
      const given = Buffer.from(token.slice(dot + 1), 'base64url');
      if (given.length !== MAC_BYTES) return undefined;
      if (!keys.some(key => timingSafeEqual(mac(key, signed, principal), given))) return undefined;
      return readPayload(signed.slice(signed.indexOf('.') + 1), principal, seconds());
    },
  };
}

/** The MAC has been checked: what is wrong here is a payload of another version of ours, or an old one. */
function readPayload(text: string, principal: string, now: number): SessionClaims | undefined {
  const payload: unknown = JSON.parse(Buffer.from(text, 'base64url').toString());
  if (!isObject(payload) || typeof payload.i !== 'string' || typeof payload.v !== 'string') return undefined;
  if (typeof payload.t !== 'number' || now - payload.t > LIFETIME_S) return undefined;
  const [name, version] = Array.isArray(payload.n) ? payload.n : [];
  const capabilities = isObject(payload.c) ? payload.c : {};
  return {
    id: payload.i,
    protocolVersion: payload.v,
    capabilities,
    clientInfo: { name, version },
    principal,
  };
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

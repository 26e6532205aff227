import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { isObject } from '../mesh/jsonrpc.ts';

export interface Session {
  /** Unique among all sessions. */
  id: string;
  protocolVersion: string;
}

export interface Sessions {
  /** A new session id. */
  mint(protocolVersion: string): string;
  /** The session of an id that one of this service's workers minted, else undefined. */
  read(token: string): Session | undefined;
}

interface SessionsOptions {
  /** Sign with the first, accept any: rotation adds the new key in front and drops the last one later. */
  keys: readonly Buffer[];
  service: string;
  /** Short name of this instance (`ownerHash`), so that gateways can prefer it; known once it listens. */
  owner(): string;
}

const MAC_BYTES = 16;
const ID_BYTES = 12;
const TOKEN_MAX = 1024;

/**
 * Legacy sessions (`Mcp-Session-Id`) as signed tokens `<owner>.<payload>.<mac>`: any worker of the service can serve
 * them, none has to remember them, and nobody can make one up. HMAC-SHA-256, cut to 128 bits (RFC 2104 §5).
 */
export function createSessions({ keys, service, owner }: SessionsOptions): Sessions {
  const [signingKey] = keys;
  if (!signingKey) throw new Error('sessions need at least one service key');
  const mac = (key: Buffer, signed: string) =>
    createHmac('sha256', key).update(`session\0${service}\0${signed}`).digest().subarray(0, MAC_BYTES);

  return {
    mint(protocolVersion) {
      const payload = { i: randomBytes(ID_BYTES).toString('base64url'), v: protocolVersion };
      const signed = `${owner()}.${Buffer.from(JSON.stringify(payload)).toString('base64url')}`;
      return `${signed}.${mac(signingKey, signed).toString('base64url')}`;
    },
    read(token) {
      if (token.length > TOKEN_MAX) return undefined;
      const dot = token.lastIndexOf('.');
      const signed = token.slice(0, dot);
      const given = Buffer.from(token.slice(dot + 1), 'base64url');
      if (given.length !== MAC_BYTES) return undefined;
      if (!keys.some(key => timingSafeEqual(mac(key, signed), given))) return undefined;
      return readPayload(signed.slice(signed.indexOf('.') + 1));
    },
  };
}

/** The MAC has been checked: what is wrong here is a payload of another version of ours. */
function readPayload(text: string): Session | undefined {
  const payload: unknown = JSON.parse(Buffer.from(text, 'base64url').toString());
  if (!isObject(payload) || typeof payload.i !== 'string' || typeof payload.v !== 'string') return undefined;
  return { id: payload.i, protocolVersion: payload.v };
}

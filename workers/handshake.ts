import { setTimeout as delay } from 'node:timers/promises';
import { type Era, LATEST_LEGACY_VERSION, META, MODERN_VERSION, RPC } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import { isObject, type JsonObject } from '../mesh/jsonrpc.ts';
import { type Multiplexer, resultOf } from './multiplexer.ts';

/** What a server said of itself, by `initialize` or by `server/discover`. */
export interface ServerInfo {
  era: Era;
  protocolVersion: string;
  capabilities: JsonObject;
  serverInfo: { name: string; version: string };
  instructions?: string;
}

/** What we say of the client in the handshake with a legacy server. */
export interface ClientProfile {
  protocolVersion: string;
  capabilities: JsonObject;
  clientInfo: JsonObject;
}

export interface HandshakeOptions {
  /** The era to try first; a server that speaks both stays in it (serveStdio pins it by the first message). */
  prefer: Era;
  client?: ClientProfile;
  /** Longest time to the answer. */
  timeoutMs: number;
}

/** A client that can be routed nothing: what is declared to a server that many clients share. */
export const NO_CLIENT: ClientProfile = {
  protocolVersion: LATEST_LEGACY_VERSION,
  capabilities: {},
  clientInfo: { name: 'mcp-mesh', version: '0.1.0' },
};

/** A legacy server may say nothing at all to a method that it does not know, or may just be slow to start. */
const PROBE_SILENCE_MS = 5000;
const MODERN_ERRORS = new Set<number>([RPC.headerMismatch, RPC.missingCapability, RPC.unsupportedVersion]);

/**
 * Finds out the server's era and shakes hands in it.
 * @throws MeshError `timeout`, `child_crashed`, `protocol_error`
 */
export async function shakeHands(
  multiplexer: Multiplexer,
  { prefer, client = NO_CLIENT, timeoutMs }: HandshakeOptions,
): Promise<ServerInfo> {
  return prefer === 'modern' ? probe(multiplexer, client, timeoutMs) : greet(multiplexer, client, timeoutMs);
}

/** The `_meta` of a request of our own: we declare no capability. */
export function modernMeta(more: unknown = {}): JsonObject {
  return {
    ...(isObject(more) ? more : {}),
    [META.protocolVersion]: MODERN_VERSION,
    [META.clientCapabilities]: {},
    [META.clientInfo]: NO_CLIENT.clientInfo,
  };
}

/** `server/discover` first; anything that is not modern, silence included, is greeted as legacy. */
async function probe(
  multiplexer: Multiplexer,
  client: ClientProfile,
  timeoutMs: number,
): Promise<ServerInfo> {
  const discovered = discover(multiplexer, timeoutMs);
  const silence = new AbortController();
  const quiet = delay(PROBE_SILENCE_MS, 'quiet' as const, { signal: silence.signal }).catch(
    () => 'quiet' as const,
  );
  const first = await Promise.race([discovered, quiet]);
  silence.abort();
  if (first === undefined) return initialize(multiplexer, client, timeoutMs);
  if (first !== 'quiet') return first;
  // Both are under way now: a slow modern server answers the first, a slow legacy one the second.
  const late = discovered.then(info => info ?? new Promise<never>(() => {}));
  return Promise.race([initialize(multiplexer, client, timeoutMs), late]);
}

/** `initialize` first, for a client of that era; a server that knows only the modern one says so. */
async function greet(
  multiplexer: Multiplexer,
  client: ClientProfile,
  timeoutMs: number,
): Promise<ServerInfo> {
  try {
    return await initialize(multiplexer, client, timeoutMs);
  } catch (error) {
    if (!(error instanceof MeshError) || error.code !== 'protocol_error') throw error;
    const info = await discover(multiplexer, timeoutMs);
    if (!info) throw error;
    return info;
  }
}

async function discover(multiplexer: Multiplexer, timeoutMs: number): Promise<ServerInfo | undefined> {
  const response = await multiplexer.ask('server/discover', { _meta: modernMeta() }, { timeoutMs });
  const { error, result } = response.value;
  if (isObject(error) && MODERN_ERRORS.has(Number(error.code))) {
    const served = isObject(error.data) ? JSON.stringify(error.data.supported) : 'others';
    const detail = `it speaks modern revisions, but not ${MODERN_VERSION} (${served})`;
    throw new MeshError('protocol_error', { detail });
  }
  if (!isObject(result) || !Array.isArray(result.supportedVersions)) return undefined;
  if (!result.supportedVersions.includes(MODERN_VERSION) || !isObject(result.capabilities)) return undefined;
  const meta = isObject(result._meta) ? result._meta : {};
  return {
    era: 'modern',
    protocolVersion: MODERN_VERSION,
    capabilities: result.capabilities,
    serverInfo: readName(meta[META.serverInfo]),
    ...(typeof result.instructions === 'string' ? { instructions: result.instructions } : {}),
  };
}

async function initialize(
  multiplexer: Multiplexer,
  client: ClientProfile,
  timeoutMs: number,
): Promise<ServerInfo> {
  const response = await multiplexer.ask('initialize', client, { timeoutMs });
  const result = resultOf(response);
  const valid =
    isObject(result) && typeof result.protocolVersion === 'string' && isObject(result.capabilities);
  if (!valid || !isObject(result.serverInfo)) {
    const detail = 'its answer to initialize lacks version, capabilities or name';
    throw new MeshError('protocol_error', { detail });
  }
  multiplexer.notify('notifications/initialized');
  return { ...(result as unknown as ServerInfo), era: 'legacy' };
}

/** A modern server SHOULD name itself. */
function readName(value: unknown): { name: string; version: string } {
  if (!isObject(value)) return { name: 'unnamed', version: '' };
  return { ...value, name: String(value.name ?? 'unnamed'), version: String(value.version ?? '') };
}

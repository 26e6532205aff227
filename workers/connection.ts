import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type Era, LATEST_LEGACY_VERSION, META, MODERN_VERSION, RPC } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import {
  isObject,
  type JsonObject,
  type RpcNotification,
  type RpcRequest,
  type RpcResponse,
} from '../mesh/jsonrpc.ts';
import type { Service } from '../mesh/registry.ts';
import { Child, type ChildExit } from './child.ts';
import { type AnswerMember, type CallOptions, Multiplexer, resultOf } from './multiplexer.ts';

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

export interface ConnectionHandlers {
  onNotification(notification: RpcNotification): void;
  onRequest?: ((request: RpcRequest, withdrawn: AbortSignal) => Promise<AnswerMember>) | undefined;
}

interface ConnectionOptions extends ConnectionHandlers {
  service: Service;
  log: Logger;
  /** All calls belong to one client (see Multiplexer). */
  exclusive: boolean;
  onExit(exit: ChildExit): void;
}

interface HandshakeOptions {
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

/** One run of the service's MCP server: its process, the handshake in its era, and the calls on it. */
export class Connection {
  readonly #child: Child;
  readonly #multiplexer: Multiplexer;
  #info: ServerInfo | undefined;

  constructor({ service, log, exclusive, onNotification, onRequest, onExit }: ConnectionOptions) {
    const child: Child = new Child(service, {
      onLine: line => multiplexer.receive(line),
      onLineTooLong: head => multiplexer.receiveTooLong(head),
      onStderr: line => log.debug({ stderr: line }, 'server'),
      onExit(exit) {
        const detail = shortReason(exit.reason);
        multiplexer.fail(new MeshError('child_crashed', { detail, delivered: 'unknown' }));
        onExit(exit);
      },
    });
    const multiplexer = new Multiplexer({
      write: line => child.write(line),
      exclusive,
      onNotification,
      onRequest,
      log,
    });
    this.#child = child;
    this.#multiplexer = multiplexer;
  }

  /** undefined until the handshake is done. */
  get info(): ServerInfo | undefined {
    return this.#info;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get inFlight(): number {
    return this.#multiplexer.inFlight;
  }

  get logging(): boolean {
    return this.#multiplexer.logging;
  }

  /** The last thing it wrote to stderr, for error messages. */
  get lastWords(): string | undefined {
    return this.#child.stderrTail.at(-1);
  }

  /**
   * Finds out the server's era and shakes hands in it.
   * @throws MeshError `timeout`, `child_crashed`, `protocol_error`
   */
  async shakeHands({ prefer, client = NO_CLIENT, timeoutMs }: HandshakeOptions): Promise<ServerInfo> {
    this.#info =
      prefer === 'modern' ? await this.#probe(client, timeoutMs) : await this.#greet(client, timeoutMs);
    return this.#info;
  }

  /** @throws MeshError as `Multiplexer.call` */
  call(request: RpcRequest, options: CallOptions): Promise<string> {
    return this.#multiplexer.call(request, options);
  }

  /** A request of our own, with the `_meta` that a modern server needs. @throws MeshError as `Multiplexer.ask` */
  ask(method: string, params: JsonObject, options: CallOptions): Promise<RpcResponse> {
    const modern = this.#info?.era === 'modern';
    return this.#multiplexer.ask(
      method,
      modern ? { ...params, _meta: modernMeta(params._meta) } : params,
      options,
    );
  }

  notify(method: string, params?: unknown): void {
    this.#multiplexer.notify(method, params);
  }

  stop(): Promise<void> {
    return this.#child.stop();
  }

  kill(): void {
    this.#child.kill();
  }

  /** `server/discover` first; anything that is not modern, silence included, is greeted as legacy. */
  async #probe(client: ClientProfile, timeoutMs: number): Promise<ServerInfo> {
    const discovered = this.#discover(timeoutMs);
    const silence = new AbortController();
    const quiet = delay(PROBE_SILENCE_MS, 'quiet' as const, { signal: silence.signal }).catch(
      () => 'quiet' as const,
    );
    const first = await Promise.race([discovered, quiet]);
    silence.abort();
    if (first === undefined) return this.#initialize(client, timeoutMs);
    if (first !== 'quiet') return first;
    // Both are under way now: a slow modern server answers the first, a slow legacy one the second.
    const late = discovered.then(info => info ?? new Promise<never>(() => {}));
    return Promise.race([this.#initialize(client, timeoutMs), late]);
  }

  /** `initialize` first, for a client of that era; a server that knows only the modern one says so. */
  async #greet(client: ClientProfile, timeoutMs: number): Promise<ServerInfo> {
    try {
      return await this.#initialize(client, timeoutMs);
    } catch (error) {
      if (!(error instanceof MeshError) || error.code !== 'protocol_error') throw error;
      const info = await this.#discover(timeoutMs);
      if (!info) throw error;
      return info;
    }
  }

  async #discover(timeoutMs: number): Promise<ServerInfo | undefined> {
    const response = await this.#multiplexer.ask('server/discover', { _meta: modernMeta() }, { timeoutMs });
    const { error, result } = response.value;
    if (isObject(error) && MODERN_ERRORS.has(Number(error.code))) {
      const served = isObject(error.data) ? JSON.stringify(error.data.supported) : 'others';
      const detail = `it speaks modern revisions, but not ${MODERN_VERSION} (${served})`;
      throw new MeshError('protocol_error', { detail });
    }
    if (!isObject(result) || !Array.isArray(result.supportedVersions)) return undefined;
    if (!result.supportedVersions.includes(MODERN_VERSION) || !isObject(result.capabilities))
      return undefined;
    const meta = isObject(result._meta) ? result._meta : {};
    return {
      era: 'modern',
      protocolVersion: MODERN_VERSION,
      capabilities: result.capabilities,
      serverInfo: readName(meta[META.serverInfo]),
      ...(typeof result.instructions === 'string' ? { instructions: result.instructions } : {}),
    };
  }

  async #initialize(client: ClientProfile, timeoutMs: number): Promise<ServerInfo> {
    const response = await this.#multiplexer.ask('initialize', client, { timeoutMs });
    const result = resultOf(response);
    const valid =
      isObject(result) && typeof result.protocolVersion === 'string' && isObject(result.capabilities);
    if (!valid || !isObject(result.serverInfo)) {
      const detail = 'its answer to initialize lacks version, capabilities or name';
      throw new MeshError('protocol_error', { detail });
    }
    this.notify('notifications/initialized');
    return { ...(result as unknown as ServerInfo), era: 'legacy' };
  }
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

/** Without the server's stderr, which is for operators: it may hold what a caller must not see. */
export function shortReason(reason: string): string {
  return reason.split(':', 1)[0] ?? reason;
}

/** A modern server SHOULD name itself. */
function readName(value: unknown): { name: string; version: string } {
  if (!isObject(value)) return { name: 'unnamed', version: '' };
  return { ...value, name: String(value.name ?? 'unnamed'), version: String(value.version ?? '') };
}

import type { Logger } from 'pino';
import { MeshError } from '../mesh/errors.ts';
import { isObject, type JsonObject, type RpcNotification, type RpcRequest } from '../mesh/jsonrpc.ts';
import type { Service } from '../mesh/registry.ts';
import { Child, type ChildExit } from './child.ts';
import { type CallOptions, Multiplexer } from './multiplexer.ts';

/** What the server said of itself in its initialize result. */
export interface ServerInfo {
  protocolVersion: string;
  capabilities: JsonObject;
  serverInfo: { name: string; version: string };
  instructions?: string;
}

export type ServerState = 'starting' | 'ready' | 'down' | 'stopped';

interface StdioServerOptions {
  service: Service;
  log: Logger;
  /** Longest time from spawn to the answer to `initialize`; `npx` may download first. */
  handshakeTimeoutMs: number;
  onState(state: ServerState, reason: string): void;
  onNotification?: (notification: RpcNotification) => void;
}

/** Newest legacy revision that we speak to a child; it answers with its own best. */
const PROTOCOL_VERSION = '2025-11-25';
const CLIENT_INFO = { name: 'mcp-mesh', version: '0.1.0' };
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;
const BACKOFF_JITTER = 0.25;
/** A child that ran this long was healthy: its next failure starts with the shortest wait again. */
const SUSTAINED_UPTIME_MS = 60_000;

/** The service's MCP server, kept alive: one child at a time, started again with backoff when it ends. */
export class StdioServer {
  readonly #options: StdioServerOptions;
  #child: Child | undefined;
  #multiplexer: Multiplexer | undefined;
  #state: ServerState = 'down';
  #reason = 'not started';
  #info: ServerInfo | undefined;
  #failures = 0;
  #restarts = 0;
  #nextStart: NodeJS.Timeout | undefined;
  #nextStartAt = 0;

  constructor(options: StdioServerOptions) {
    this.#options = options;
  }

  get state(): ServerState {
    return this.#state;
  }

  /** Why the server is not ready, in words; empty when it is. */
  get reason(): string {
    return this.#reason;
  }

  get info(): ServerInfo | undefined {
    return this.#info;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get restarts(): number {
    return this.#restarts;
  }

  get inFlight(): number {
    return this.#multiplexer?.inFlight ?? 0;
  }

  /** Spawns the server and shakes hands; outcome and later changes come through `onState`. */
  start(): void {
    if (this.#state === 'stopped') return;
    this.#become('starting', 'child is starting');
    const startedAt = Date.now();
    let handshakeFault: string | undefined;
    const child: Child = new Child(this.#options.service, {
      onLine: line => multiplexer.receive(line),
      onLineTooLong: head => multiplexer.receiveTooLong(head),
      onStderr: line => this.#options.log.debug({ stderr: line }, 'server'),
      onExit: exit => this.#onExit(multiplexer, exit, handshakeFault, Date.now() - startedAt),
    });
    const multiplexer = new Multiplexer({
      write: line => child.write(line),
      onNotification: notification => this.#options.onNotification?.(notification),
      log: this.#options.log,
    });
    this.#child = child;
    this.#multiplexer = multiplexer;
    this.#handshake(multiplexer).catch((error: MeshError) => {
      const last = child.stderrTail.at(-1);
      handshakeFault = `initialize failed (${error.message})${last === undefined ? '' : `: ${last}`}`;
      child.kill();
    });
  }

  /** @throws MeshError as `Multiplexer.call`, `child_unavailable` while the server is not ready */
  call(request: RpcRequest, options: CallOptions): Promise<string> {
    if (this.#state !== 'ready' || !this.#multiplexer) return Promise.reject(this.#unavailable());
    return this.#multiplexer.call(request, options);
  }

  /** @throws MeshError as `Multiplexer.ask`, `child_unavailable` while the server is not ready */
  ask(method: string, params: unknown, timeoutMs: number): Promise<unknown> {
    if (this.#state !== 'ready' || !this.#multiplexer) return Promise.reject(this.#unavailable());
    return this.#multiplexer.ask(method, params, timeoutMs);
  }

  async stop(): Promise<void> {
    this.#become('stopped', 'worker is stopping');
    clearTimeout(this.#nextStart);
    await this.#child?.stop();
  }

  async #handshake(multiplexer: Multiplexer): Promise<void> {
    const { handshakeTimeoutMs } = this.#options;
    // No capability is declared: what a server asks back could not be routed to one of many clients with certainty.
    const params = { protocolVersion: PROTOCOL_VERSION, capabilities: {}, clientInfo: CLIENT_INFO };
    const result = await multiplexer.ask('initialize', params, handshakeTimeoutMs);
    this.#info = readServerInfo(result);
    multiplexer.notify('notifications/initialized');
    if (this.#state === 'starting') this.#become('ready', '');
  }

  #onExit(
    multiplexer: Multiplexer,
    exit: ChildExit,
    handshakeFault: string | undefined,
    uptimeMs: number,
  ): void {
    multiplexer.fail(
      new MeshError('child_crashed', { detail: shortReason(exit.reason), delivered: 'unknown' }),
    );
    if (this.#state === 'stopped') return;
    if (uptimeMs >= SUSTAINED_UPTIME_MS) this.#failures = 0;
    const wait = backoffMs(this.#failures);
    this.#failures += 1;
    this.#restarts += 1;
    const reason = handshakeFault ?? exit.reason;
    this.#options.log.warn(
      { reason, stderr: exit.stderr, retryInMs: wait },
      'server ended; it will be started again',
    );
    this.#nextStartAt = Date.now() + wait;
    this.#nextStart = setTimeout(() => this.start(), wait);
    this.#become('down', reason);
  }

  #become(state: ServerState, reason: string): void {
    // While a broken server is tried again, the reason that matters is why it failed the last time.
    const keepReason = state === 'starting' && this.#failures > 0;
    this.#state = state;
    if (!keepReason) this.#reason = reason;
    this.#options.onState(state, this.#reason);
  }

  #unavailable(): MeshError {
    const retryAfterMs = Math.max(BACKOFF_FIRST_MS, this.#nextStartAt - Date.now());
    return new MeshError('child_unavailable', {
      detail: shortReason(this.#reason),
      delivered: 'no',
      retryAfterMs,
    });
  }
}

function readServerInfo(result: unknown): ServerInfo {
  const valid =
    isObject(result) &&
    typeof result.protocolVersion === 'string' &&
    isObject(result.capabilities) &&
    isObject(result.serverInfo);
  if (valid) return result as unknown as ServerInfo;
  throw new MeshError('protocol_error', {
    detail: 'its answer to initialize lacks version, capabilities or name',
  });
}

function backoffMs(failures: number): number {
  const base = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** failures);
  return Math.round(base * (1 + BACKOFF_JITTER * (2 * Math.random() - 1)));
}

/** Without the server's stderr, which is for operators: it may hold what a caller must not see. */
function shortReason(reason: string): string {
  return reason.split(':', 1)[0] ?? reason;
}

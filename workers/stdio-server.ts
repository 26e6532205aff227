import type { Logger } from 'pino';
import { type Breaker, createBreaker } from '../mesh/breaker.ts';
import type { Era } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import type { JsonObject, RpcNotification, RpcRequest, RpcResponse } from '../mesh/jsonrpc.ts';
import type { Service } from '../mesh/registry.ts';
import type { ChildExit } from './child.ts';
import { Connection, type ServerInfo, shortReason } from './connection.ts';
import type { CallOptions } from './multiplexer.ts';

export type ServerState = 'starting' | 'ready' | 'down' | 'stopped';

interface StdioServerOptions {
  service: Service;
  log: Logger;
  /** Longest time from spawn to the end of the handshake; `npx` may download first. */
  handshakeTimeoutMs: number;
  onState(state: ServerState, reason: string): void;
  onNotification?: (notification: RpcNotification) => void;
}

/** What says that the server itself is in trouble; a caller's cancel or a refused call does not. */
const FAILURES = new Set(['timeout', 'child_crashed', 'protocol_error']);
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;
const BACKOFF_JITTER = 0.25;
/** A child that ran this long was healthy: its next failure starts with the shortest wait again. */
const SUSTAINED_UPTIME_MS = 60_000;

/** The service's MCP server, shared by all clients and kept alive: one process at a time, started again with backoff. */
export class StdioServer {
  readonly #options: StdioServerOptions;
  #connection: Connection | undefined;
  #state: ServerState = 'down';
  #reason = 'not started';
  #info: ServerInfo | undefined;
  /** Modern is tried first, until a server ended on the unknown question: then it is greeted as it expects. */
  #prefer: Era = 'modern';
  #failures = 0;
  #restarts = 0;
  #nextStart: NodeJS.Timeout | undefined;
  #nextStartAt = 0;
  readonly #breaker: Breaker;
  /** Faults that say nothing of the server, or were counted: one crash fails many calls and is one failure. */
  readonly #excused = new WeakSet<object>();

  constructor(options: StdioServerOptions) {
    this.#options = options;
    const { failure_threshold, recovery_timeout } = options.service.circuit_breaker;
    this.#breaker = createBreaker({
      failureThreshold: failure_threshold,
      recoveryMs: recovery_timeout * 1000,
      isFailure: error => this.#isFailure(error),
    });
  }

  get state(): ServerState {
    return this.#state;
  }

  /** Why the server is not ready, in words; empty when it is. */
  get reason(): string {
    return this.#reason;
  }

  /** Of the current process, or of the last one that was ready. */
  get info(): ServerInfo | undefined {
    return this.#info;
  }

  get pid(): number | undefined {
    return this.#connection?.pid;
  }

  get restarts(): number {
    return this.#restarts;
  }

  get inFlight(): number {
    return this.#connection?.inFlight ?? 0;
  }

  get breakerOpen(): boolean {
    return this.#breaker.state === 'open';
  }

  get logging(): boolean {
    return this.#connection?.logging ?? false;
  }

  /** Spawns the server and shakes hands; outcome and later changes come through `onState`. */
  start(): void {
    if (this.#state === 'stopped') return;
    this.#become('starting', 'child is starting');
    const startedAt = Date.now();
    let fault: string | undefined;
    const connection: Connection = new Connection({
      service: this.#options.service,
      log: this.#options.log,
      exclusive: false,
      onNotification: notification => this.#options.onNotification?.(notification),
      onExit: exit => this.#onExit(exit, fault, connection.info !== undefined, Date.now() - startedAt),
    });
    this.#connection = connection;
    connection.shakeHands({ prefer: this.#prefer, timeoutMs: this.#options.handshakeTimeoutMs }).then(
      info => {
        this.#info = info;
        if (this.#state === 'starting') this.#become('ready', '');
      },
      (error: MeshError) => {
        const last = connection.lastWords;
        if (error.code !== 'child_crashed') {
          fault = `initialize failed (${error.message})${last === undefined ? '' : `: ${last}`}`;
        }
        connection.kill();
      },
    );
  }

  /** @throws MeshError as `Multiplexer.call`, `child_unavailable` while the server is not ready, `circuit_open` */
  call(request: RpcRequest, options: CallOptions): Promise<string> {
    return this.#breaker.run(async () => {
      try {
        return await this.#ready().call(request, options);
      } catch (error) {
        if (options.impatient) this.#excused.add(error as object);
        throw error;
      }
    });
  }

  /** @throws MeshError as `Multiplexer.ask`, `child_unavailable` while the server is not ready */
  async ask(method: string, params: JsonObject, options: CallOptions): Promise<RpcResponse> {
    return this.#ready().ask(method, params, options);
  }

  async stop(): Promise<void> {
    this.#become('stopped', 'worker is stopping');
    clearTimeout(this.#nextStart);
    this.#breaker.close();
    await this.#connection?.stop();
  }

  #isFailure(error: unknown): boolean {
    if (!(error instanceof MeshError) || !FAILURES.has(error.code) || this.#excused.has(error)) return false;
    this.#excused.add(error);
    return true;
  }

  #ready(): Connection {
    if (this.#state === 'ready' && this.#connection) return this.#connection;
    const retryAfterMs = Math.max(BACKOFF_FIRST_MS, this.#nextStartAt - Date.now());
    const detail = shortReason(this.#reason);
    throw new MeshError('child_unavailable', { detail, delivered: 'no', retryAfterMs });
  }

  #onExit(exit: ChildExit, fault: string | undefined, wasReady: boolean, uptimeMs: number): void {
    if (this.#state === 'stopped') return;
    if (!wasReady) this.#prefer = this.#prefer === 'modern' ? 'legacy' : 'modern';
    if (uptimeMs >= SUSTAINED_UPTIME_MS) this.#failures = 0;
    const wait = backoffMs(this.#failures);
    this.#failures += 1;
    this.#restarts += 1;
    const reason = fault ?? exit.reason;
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
}

function backoffMs(failures: number): number {
  const base = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** failures);
  return Math.round(base * (1 + BACKOFF_JITTER * (2 * Math.random() - 1)));
}

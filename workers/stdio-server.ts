import type { Logger } from 'pino';
import type { Era } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import type { JsonObject, RpcNotification, RpcRequest, RpcResponse } from '../mesh/jsonrpc.ts';
import { withoutLastWords } from '../mesh/last-words.ts';
import type { Service } from '../mesh/registry.ts';
import type { WireText } from '../mesh/wire-text.ts';
import { StderrTail } from './child/stderr-tail.ts';
import { NO_USAGE } from './child/usage.ts';
import type { ChildExit } from './child.ts';
import { Connection, type ServerInfo } from './connection.ts';
import type { HangTimes } from './hang-watch.ts';
import type { CallOptions } from './multiplexer.ts';
import { Recycling } from './recycling.ts';
import { type RestartReason, Restarts } from './restarts.ts';
import { type Run, retire } from './run.ts';
import { createServerBreaker, type ServerBreaker } from './server-breaker.ts';

export type ServerState = 'starting' | 'ready' | 'down' | 'stopped';

interface StdioServerOptions {
  service: Service;
  log: Logger;
  /** Longest time from spawn to the end of the handshake; `npx` may download first. */
  handshakeTimeoutMs: number;
  /** See `HangWatch`; default: half a minute each. */
  hang?: HangTimes;
  onState(state: ServerState, reason: string): void;
  onNotification?: (notification: RpcNotification) => void;
}

/** What operators want to know of a server. */
export interface ServerStats {
  pid: number | undefined;
  /** Counts the processes that were started for this server, from 1. */
  generation: number;
  restarts: Readonly<Record<RestartReason, number>>;
  /** Of all processes of the current run, about a second old at most. */
  rssBytes: number;
  cpuSeconds: number;
  processes: number;
  /** Since the current run was ready; 0 when it is not. */
  uptimeSeconds: number;
  parked: boolean;
  /** Why the last run that failed did so; it stays when the next one is well. */
  lastError: string | undefined;
}

const RETRY_AFTER_MS = 500;
const RECYCLE_LOOK_MS = 1000;
/** After a successor failed to come up: the old one works, so there is no hurry. */
const RECYCLE_RETRY_MS = 60_000;

/**
 * The service's MCP server, shared by all clients and kept alive: started again with backoff when it ends, replaced
 * without losing a call when its time has come. Every event names its run, so that what an old process still says or
 * does cannot touch a newer one.
 */
export class StdioServer {
  readonly #options: StdioServerOptions;
  readonly #restarts = new Restarts();
  readonly #stderr = new StderrTail();
  readonly #breaker: ServerBreaker;
  #current: Run | undefined;
  /** On its way up, to take the current one's place. */
  #successor: Run | undefined;
  /** Replaced, with calls in them still. */
  readonly #retiring = new Set<Run>();
  #generation = 0;
  #state: ServerState = 'down';
  #reason = 'not started';
  #lastError: string | undefined;
  #info: ServerInfo | undefined;
  /** Modern is tried first, until a server ended on the unknown question: then it is greeted as it expects. */
  #prefer: Era = 'modern';
  #nextStart: NodeJS.Timeout | undefined;
  #nextStartAt = 0;
  #nextRecycleAt = 0;
  readonly #recycler: NodeJS.Timeout | undefined;

  constructor(options: StdioServerOptions) {
    this.#options = options;
    this.#breaker = createServerBreaker(options.service);
    if (new Recycling(options.service.recycle).needsLooks) {
      this.#recycler = setInterval(() => this.#recycleWhenDue(), RECYCLE_LOOK_MS).unref();
    }
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
    return this.#current?.connection.pid;
  }

  /** Counts the processes that were started for it, from 1; of the one that calls go to. */
  get generation(): number {
    return this.#current?.generation ?? this.#generation;
  }

  get restarts(): number {
    return this.#restarts.total;
  }

  /** In all its processes, the one that is being replaced included. */
  get inFlight(): number {
    let sum = this.#current?.connection.inFlight ?? 0;
    for (const { connection } of this.#retiring) sum += connection.inFlight;
    return sum;
  }

  get breakerOpen(): boolean {
    return this.#breaker.isOpen;
  }

  get logging(): boolean {
    return this.#current?.connection.logging ?? false;
  }

  get stats(): ServerStats {
    const run = this.#current;
    const up = this.#state === 'ready' && run?.readyAt !== undefined;
    return {
      ...(run?.connection.usage ?? NO_USAGE),
      pid: run?.connection.pid,
      generation: this.#generation,
      restarts: this.#restarts.counts,
      uptimeSeconds: up ? (performance.now() - (run?.readyAt ?? 0)) / 1000 : 0,
      parked: this.#restarts.isParked && this.#state !== 'ready',
      lastError: this.#lastError,
    };
  }

  /** The last lines of its stderr, of former runs, too, each of which ends with how it ended. */
  stderrTail(): string[] {
    return this.#stderr.lines;
  }

  /** Spawns the server and shakes hands; outcome and later changes come through `onState`. */
  start(): void {
    if (this.#state === 'stopped') return;
    this.#become('starting', 'child is starting');
    this.#current = this.#spawn();
  }

  /** @throws MeshError as `Multiplexer.call`, `child_unavailable` while the server is not ready, `circuit_open` */
  call(request: RpcRequest, options: CallOptions): Promise<WireText> {
    return this.#breaker.run(options, () => {
      const run = this.#ready();
      run.calls += 1;
      const answer = run.connection.call(request, options);
      this.#recycleWhenDue();
      return answer;
    });
  }

  /** @throws MeshError as `Multiplexer.ask`, `child_unavailable` while the server is not ready */
  async ask(method: string, params: JsonObject, options: CallOptions): Promise<RpcResponse> {
    return this.#ready().connection.ask(method, params, options);
  }

  /** Resolves when no process of it is left. */
  async stop(): Promise<void> {
    this.#become('stopped', 'worker is stopping');
    clearTimeout(this.#nextStart);
    clearInterval(this.#recycler);
    this.#breaker.close();
    const runs = [this.#current, this.#successor, ...this.#retiring];
    await Promise.all(runs.map(run => run?.connection.stop()));
  }

  #ready(): Run {
    if (this.#state === 'ready' && this.#current) return this.#current;
    const retryAfterMs = Math.max(RETRY_AFTER_MS, this.#nextStartAt - Date.now());
    const detail = withoutLastWords(this.#reason);
    throw new MeshError('child_unavailable', { detail, delivered: 'no', retryAfterMs });
  }

  #spawn(): Run {
    const { service, log, handshakeTimeoutMs, hang, onNotification } = this.#options;
    this.#generation += 1;
    const connection = new Connection({
      service,
      log,
      hang,
      exclusive: false,
      onStderr: line => this.#stderr.add(line),
      onNotification: notification => {
        if (run === this.#current) onNotification?.(notification);
      },
      onExit: exit => this.#onExit(run, exit),
    });
    const run: Run = {
      generation: this.#generation,
      connection,
      startedAt: performance.now(),
      readyAt: undefined,
      calls: 0,
      recycling: new Recycling(service.recycle),
    };
    connection.shakeHands({ prefer: this.#prefer, timeoutMs: handshakeTimeoutMs }).then(
      info => this.#onHandshake(run, info),
      (error: MeshError) => connection.kill('handshake', `initialize failed (${error.message})`),
    );
    return run;
  }

  #onHandshake(run: Run, info: ServerInfo): void {
    if (this.#state === 'stopped') return;
    run.readyAt = performance.now();
    if (run === this.#successor) this.#succeed(run);
    if (run !== this.#current) return;
    this.#info = info;
    this.#become('ready', '');
  }

  #onExit(run: Run, exit: ChildExit): void {
    const { generation } = run;
    const { reason, cause, stderr } = exit;
    const { log } = this.#options;
    this.#stderr.add(`mcp-mesh: run ${generation} is over: ${withoutLastWords(reason)}`);
    if (this.#state === 'stopped') return;
    if (run === this.#successor) {
      this.#successor = undefined;
      this.#nextRecycleAt = performance.now() + RECYCLE_RETRY_MS;
      log.warn({ reason, cause, stderr, generation }, 'the new server did not come up: the old one stays');
    }
    // A run that was replaced before: its own calls have failed, and that is all.
    if (run !== this.#current) return;
    if (run.readyAt === undefined) this.#prefer = this.#prefer === 'modern' ? 'legacy' : 'modern';
    const wait = this.#restarts.ended(cause, performance.now() - run.startedAt);
    this.#lastError = reason;
    const what = this.#restarts.isParked ? 'server is parked' : 'server ended; it will be started again';
    log.warn({ reason, cause, stderr, generation, retryInMs: wait }, what);
    this.#nextStartAt = Date.now() + wait;
    this.#become('down', this.#restarts.explain(reason));
    this.#startAfter(wait);
  }

  /** A successor that is on its way up already is the next one. */
  #startAfter(waitMs: number): void {
    const successor = this.#successor;
    if (!successor) {
      this.#nextStart = setTimeout(() => this.start(), waitMs);
      return;
    }
    this.#successor = undefined;
    this.#current = successor;
    this.#become('starting', 'child is starting');
  }

  /** Replaces a server whose time has come: the new one is up before the old one goes. */
  #recycleWhenDue(): void {
    const run = this.#current;
    const now = performance.now();
    if (this.#state !== 'ready' || !run || this.#successor || now < this.#nextRecycleAt) return;
    const { rssBytes } = run.connection.usage;
    const reason = run.recycling.reason({ calls: run.calls, ageMs: now - run.startedAt, rssBytes });
    if (reason === undefined) return;
    this.#options.log.info({ reason, generation: run.generation }, 'the server is being replaced');
    this.#successor = this.#spawn();
  }

  #succeed(run: Run): void {
    const old = this.#current;
    this.#successor = undefined;
    this.#current = run;
    this.#restarts.recycled();
    if (!old) return;
    this.#retiring.add(old);
    retire(old, this.#options.service)
      .finally(() => this.#retiring.delete(old))
      .catch((error: Error) => this.#options.log.error({ err: error }, 'the old server did not end cleanly'));
  }

  #become(state: ServerState, reason: string): void {
    // While a broken server is tried again, the reason that matters is why it failed the last time.
    const keepReason = state === 'starting' && this.#restarts.failures > 0;
    this.#state = state;
    if (!keepReason) this.#reason = reason;
    this.#options.onState(state, this.#reason);
  }
}

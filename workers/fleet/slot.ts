import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Consul } from '../../mesh/consul.ts';
import type { Service } from '../../mesh/registry.ts';
import type { LogLevel } from '../log-level.ts';
import type { Report, WorkerLoad } from './messages.ts';
import type { Ports } from './ports.ts';
import { type Place, Presence } from './presence.ts';
import { RestartPolicy, type RestartTimes } from './restart-policy.ts';
import type { StartGate } from './start-gate.ts';
import { neverStarted, type WorkerEnd, WorkerProcess } from './worker-process.ts';

/**
 * `waiting` for its turn to start; `starting` until its server is ready, which then is `ready` or `down`; `backoff`
 * before it is started again, `parked` when it could not start time after time; `draining` to end; `drained` by an
 * operator.
 */
export type SlotState =
  | 'waiting'
  | 'starting'
  | 'ready'
  | 'down'
  | 'backoff'
  | 'parked'
  | 'draining'
  | 'drained';

/** Times, in milliseconds, that tests make shorter. */
export interface SlotTimes extends RestartTimes {
  /** A worker that told nothing for so long is stuck. */
  silentMs: number;
  /** After being told to stop, a worker that has not ended by then is killed. */
  stopMs: number;
}

export interface SlotOptions {
  index: number;
  program: string;
  environment(service: Service): Readonly<Record<string, string | undefined>>;
  gate: StartGate;
  ports: Ports;
  log: Logger;
  times: SlotTimes;
  /** Takes each line that the worker writes. */
  print(line: string): void;
  /** The state has changed. */
  onChange(): void;
  /** A worker has ended: its servers must not outlive it. */
  onExit(): void;
  consul: Consul | undefined;
}

export interface StopOptions {
  idleMs?: number;
  killMs?: number;
}

/** A slow server (`npx` downloads first) must not keep others from starting: it is the first seconds that need CPU. */
const GATE_HOLD_MS = 5000;

/** A place for one instance of a service: at most one worker at a time, started again when it ends, at its port. */
export class Slot {
  readonly index: number;
  /** What the current worker was started with; see `start`. */
  generation = 0;
  /** An operator drained it: nothing is started here until they restart it. */
  withheld = false;
  readonly #options: SlotOptions;
  #service: Service | undefined;
  #state: SlotState = 'drained';
  #reason = '';
  #lastError: string | undefined;
  #lastWords: string[] = [];
  /** Held for our worker; 0: none, or not known yet. */
  #port = 0;
  readonly #presence: Presence;
  #era: string | undefined;
  #load: WorkerLoad | undefined;
  #worker: WorkerProcess | undefined;
  #spawnedAt = 0;
  #readyAt = 0;
  #listened = false;
  #restarts = 0;
  #silentMs = 0;
  /** Why we killed it. */
  #killedFor: string | undefined;
  #life: Promise<void> = Promise.resolve();
  #stopping: AbortController | undefined;
  #leaveGate: () => void = () => {};

  constructor(options: SlotOptions) {
    this.#options = options;
    this.index = options.index;
    this.#presence = new Presence(options.consul);
  }

  get state(): SlotState {
    return this.#state;
  }

  /** Why it is not ready; empty when it is. */
  get reason(): string {
    return this.#reason;
  }

  /** What went wrong last, also when all is well again. */
  get lastError(): string | undefined {
    return this.#lastError;
  }

  get service(): Service | undefined {
    return this.#service;
  }

  /** Id in Consul and address, once a worker has listened here. */
  get place(): Place | undefined {
    return this.#presence.place;
  }

  get era(): string | undefined {
    return this.#era;
  }

  /** Of the running worker. */
  get load(): WorkerLoad | undefined {
    return this.#load;
  }

  get pid(): number | undefined {
    return this.#worker?.pid;
  }

  /** Epoch ms of the running worker's start; 0: none is running. */
  get startedAt(): number {
    return this.#worker ? this.#spawnedAt : 0;
  }

  /** Epoch ms since which it has been ready; only while it is. */
  get readyAt(): number {
    return this.#readyAt;
  }

  /** Times that a worker ended without having been told to. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Starts a worker for the service and keeps it running; `generation` tells it from one that was started before. */
  start(service: Service, generation: number): void {
    const stopping = new AbortController();
    this.#stopping = stopping;
    this.#service = service;
    this.generation = generation;
    this.#become('waiting', 'worker waits for its turn to start');
    this.#life = this.#live(service, stopping.signal);
  }

  /**
   * Drains and ends the worker; its port stays the slot's. `idleMs` as `Worker.stop`; `killMs`: when it is killed after
   * all. Resolves when it has ended.
   */
  async stop({ idleMs, killMs = this.#options.times.stopMs }: StopOptions = {}): Promise<void> {
    this.#stopping?.abort();
    if (this.#worker) this.#become('draining', 'worker is draining');
    this.#worker?.stop(idleMs);
    const late = setTimeout(() => this.#worker?.kill('SIGKILL'), killMs);
    await this.#life;
    clearTimeout(late);
    await this.#presence.leave();
    this.#become('drained', 'worker has been drained');
  }

  /** Gives the port back: the slot is not used again. */
  close(): void {
    this.#options.ports.giveBack(this.#port);
  }

  /** Its server's last lines; where there are none, what the worker before wrote itself, and how it ended. */
  async logs(): Promise<string[]> {
    const lines = (await this.#worker?.logs()) ?? [];
    return lines.length > 0 ? lines : this.#lastWords;
  }

  /** As `WorkerProcess.setLogLevel`. */
  async setLogLevel(level: LogLevel): Promise<string | undefined> {
    return this.#worker?.setLogLevel(level);
  }

  /** Called each time that `ms` of our own time have passed: time in which we stood still ourselves does not count. */
  tick(ms: number): void {
    const { silentMs } = this.#options.times;
    if (!this.#worker || !this.#listened || this.#state === 'draining') return;
    this.#silentMs += ms;
    if (this.#silentMs < silentMs) return;
    this.#silentMs = 0;
    this.#killedFor = `worker told nothing for ${Math.round(silentMs / 1000)} s and was killed`;
    this.#worker.kill('SIGKILL');
  }

  async #live(service: Service, signal: AbortSignal): Promise<void> {
    const policy = new RestartPolicy(this.#options.times);
    while (!signal.aborted) {
      const leave = await this.#options.gate.enter(signal);
      if (!leave) return;
      this.#leaveGate = leave;
      const hold = setTimeout(leave, GATE_HOLD_MS);
      const end = await this.#run(service, signal).catch((error: Error) => neverStarted(error.message));
      clearTimeout(hold);
      leave();
      if (signal.aborted) return;
      await this.#rest(end, policy, signal);
    }
  }

  /** One worker from its start to its end; resolves with how it ended. @throws Error when it has no port */
  async #run(service: Service, signal: AbortSignal): Promise<WorkerEnd> {
    const { program, environment, print } = this.#options;
    this.#listened = false;
    this.#spawnedAt = 0;
    await this.#takePort(service);
    if (signal.aborted) return neverStarted('');
    this.#silentMs = 0;
    this.#killedFor = undefined;
    this.#spawnedAt = Date.now();
    this.#become('starting', 'worker is starting');
    const worker = new WorkerProcess(
      { program, service, port: this.#port, env: environment(service) },
      { onReport: report => this.#receive(report), onLine: print },
    );
    this.#worker = worker;
    const end = await worker.ended;
    this.#worker = undefined;
    this.#load = undefined;
    this.#presence.end(end.clean);
    this.#options.onExit();
    return this.#killedFor === undefined ? end : { ...end, how: this.#killedFor };
  }

  async #takePort({ port_range }: Service): Promise<void> {
    const { ports, log } = this.#options;
    const before = this.place?.port ?? 0;
    ports.giveBack(this.#port);
    this.#port = 0;
    this.#port = await ports.take(before, port_range);
    if (before !== 0 && this.#port !== before)
      log.warn({ before, port: this.#port || 'any' }, 'the port of a worker is in use, it gets another one');
  }

  /** Waits until it is time to start again. */
  async #rest({ how, killed, lines }: WorkerEnd, policy: RestartPolicy, signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    const listened = this.#listened;
    const { waitMs, parked, news } = policy.judge({
      listened,
      uptimeMs: Date.now() - this.#spawnedAt,
      killed,
    });
    if (this.#spawnedAt > 0) this.#restarts += 1;
    this.#lastError = how;
    this.#lastWords = [...lines, `mcp-mesh: ${how}`];
    const facts = { service: this.#service?.name, slot: this.index, reason: how, retryInMs: waitMs };
    if (listened) log.warn(facts, 'worker ended; it is started again');
    else if (!parked) log.warn(facts, 'worker cannot start; it is tried again');
    else if (news)
      log.error(facts, 'worker cannot start and is parked: mend what the reason says, then restart it');
    this.#become(parked ? 'parked' : 'backoff', how);
    await Promise.all([this.#presence.fail(how), delay(waitMs, undefined, { signal }).catch(() => {})]);
  }

  #receive(report: Report): void {
    this.#silentMs = 0;
    if (report.type === 'load') this.#load = report.load;
    else if (report.type === 'state') this.#hear(report);
    else if (report.type === 'listening') {
      const { instance, address, port } = report;
      this.#listened = true;
      void this.#presence.enter({ instance, address, port });
      this.#port = port;
      this.#options.ports.keep(port);
    }
  }

  #hear({ state, reason, era }: Extract<Report, { type: 'state' }>): void {
    if (this.#state === 'draining') return;
    this.#era = era ?? this.#era;
    if (reason !== '' && state === 'down') this.#lastError = reason;
    if (state === 'ready' || state === 'down') this.#leaveGate();
    if (state === 'ready') this.#become('ready', '');
    else if (state === 'down') this.#become('down', reason);
    else if (state === 'stopped') this.#become('draining', reason);
    else this.#become(this.#state === 'down' ? 'down' : 'starting', reason);
  }

  #become(state: SlotState, reason: string): void {
    if (state === 'ready' && this.#state !== 'ready') this.#readyAt = Date.now();
    this.#state = state;
    this.#reason = reason;
    this.#options.onChange();
  }
}

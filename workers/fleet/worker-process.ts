import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Service } from '../../mesh/registry.ts';
import { StderrTail } from '../child/stderr-tail.ts';
import { createLineReader } from '../line-reader.ts';
import type { LogLevel } from '../log-level.ts';
import { compileCacheOf, NODE_FLAGS } from '../node-flags.ts';
import { isReport, type Order, type Report, sendTo } from './messages.ts';

export interface Launch {
  /** The worker's program: workers/main.ts or a bundle of it. */
  program: string;
  service: Service;
  /** 0: any. */
  port: number;
  env: Readonly<Record<string, string | undefined>>;
}

export interface WorkerEnd {
  /** In words, with its last words where they say why. */
  how: string;
  /** By a signal. */
  killed: boolean;
  /** It drained, and left Consul. */
  clean: boolean;
  /** The last lines that it wrote itself. */
  lines: string[];
}

interface Handlers {
  onReport(report: Report): void;
  /** A whole line of its stderr. */
  onLine(line: string): void;
}

const LINE_BYTES = 256 * 1024;
const ANSWER_TIMEOUT_MS = 2000;
const PIPE_GRACE_MS = 200;
type Question = Extract<Order, { id: number }>;
type Answer = Extract<Report, { id: number }>;
type Unnumbered<T> = T extends unknown ? Omit<T, 'id'> : never;

/** The end of a worker that there never was. */
export function neverStarted(how: string): WorkerEnd {
  return { how, killed: false, clean: false, lines: [] };
}

/** One run of a worker. */
export class WorkerProcess {
  /** Resolves when it has ended. */
  readonly ended: Promise<WorkerEnd>;
  readonly #process: ChildProcess;
  readonly #handlers: Handlers;
  readonly #tail = new StderrTail();
  readonly #asked = new Map<number, (answer: Answer | undefined) => void>();
  #failure: string | undefined;
  #questions = 0;

  /**
   * In a group of its own, so that Ctrl-C reaches a worker once and by way of us; the IPC channel tells it when we are
   * gone without a word. Its stderr is a pipe: its last words are part of why it ended.
   */
  constructor({ program, service, port, env }: Launch, handlers: Handlers) {
    this.#handlers = handlers;
    this.#process = spawn(process.execPath, [...NODE_FLAGS, program, service.name, '--supervised'], {
      detached: true,
      env: { ...compileCacheOf(program), ...env },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.ended = this.#watch();
    this.#send({ type: 'start', service, port });
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** Lets it drain and end; `idleMs` as in the order. */
  stop(idleMs: number | undefined): void {
    // One that is stopped (SIGSTOP) could not even drain.
    this.kill('SIGCONT');
    if (this.#process.connected) this.#send({ type: 'stop', idleMs });
    else this.kill('SIGTERM');
  }

  kill(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** The last lines of its MCP server's stderr, else its own. */
  async logs(): Promise<string[]> {
    const answer = await this.#ask({ type: 'logs' });
    return (answer?.type === 'logs' ? answer.lines : undefined) ?? this.#tail.lines;
  }

  /** Resolves with the level that is in force then; undefined: it does not answer, or has no log yet. */
  async setLogLevel(level: LogLevel): Promise<string | undefined> {
    const answer = await this.#ask({ type: 'log-level', level });
    return answer?.type === 'log-level' ? answer.level : undefined;
  }

  #send(order: Order): void {
    sendTo(this.#process, order);
  }

  /** undefined: no answer in time. */
  #ask(question: Unnumbered<Question>): Promise<Answer | undefined> {
    this.#questions += 1;
    const id = this.#questions;
    return new Promise(resolve => {
      const settle = (answer: Answer | undefined) => {
        clearTimeout(timer);
        this.#asked.delete(id);
        resolve(answer);
      };
      // A worker that is stuck does not answer; what it wrote itself is known here.
      const timer = setTimeout(settle, ANSWER_TIMEOUT_MS, undefined);
      this.#asked.set(id, settle);
      if (this.#process.connected) this.#send({ ...question, id });
      else settle(undefined);
    });
  }

  async #watch(): Promise<WorkerEnd> {
    const child = this.#process;
    const { stderr } = child as { stderr: Readable };
    const take = (line: string) => {
      this.#tail.add(line);
      this.#handlers.onLine(line);
    };
    stderr.on(
      'data',
      createLineReader({
        maxBytes: LINE_BYTES,
        onLine: line => take(line.toString()),
        onTooLong: take,
      }),
    );
    child.on('message', message => {
      if (isReport(message)) this.#receive(message);
    });
    try {
      await once(child, 'exit');
    } catch (error) {
      return neverStarted(`worker cannot be started: ${(error as Error).message}`);
    }
    // A process that it left behind may hold the pipe open.
    if (!stderr.closed) await Promise.race([once(stderr, 'close'), delay(PIPE_GRACE_MS)]);
    stderr.destroy();
    for (const settle of this.#asked.values()) settle(undefined);
    const { signalCode, exitCode } = child;
    const { lines } = this.#tail;
    if (signalCode) return { how: `worker was ended by ${signalCode}`, killed: true, clean: false, lines };
    const clean = exitCode === 0;
    const why = this.#failure ?? (clean ? undefined : this.#tail.last);
    return {
      how: `worker exits with ${exitCode}${why === undefined ? '' : `: ${why}`}`,
      killed: false,
      clean,
      lines,
    };
  }

  #receive(report: Report): void {
    if (report.type === 'failed') this.#failure = report.reason;
    else if ('id' in report) this.#asked.get(report.id)?.(report);
    else this.#handlers.onReport(report);
  }
}

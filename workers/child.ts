import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import type { Service } from '../mesh/registry.ts';
import { inheritedEnvironment } from '../mesh/settings.ts';
import { createLineReader } from './line-reader.ts';

export interface ChildExit {
  /** In words, with the last line of stderr: "child exits with 127: sh: foo: not found". */
  reason: string;
  stderr: string[];
}

interface ChildHandlers {
  onLine(line: string): void;
  onLineTooLong(head: string): void;
  onStderr(line: string): void;
  /** Called exactly once, also when the program could not be started. */
  onExit(exit: ChildExit): void;
}

const STDERR_LINES = 40;
const STDERR_LINE_BYTES = 4096;
/** A helper process may hold the pipes open after the server itself has ended. */
const PIPE_GRACE_MS = 200;
const STOP_STEP_MS = 2000;
/** Of input that the server has not read yet; beyond it the server is stuck, and more would only fill our memory. */
const UNREAD_MAX_BYTES = 64 * 1024 * 1024;

/** One run of an MCP stdio server: a process group of its own, never a shell. */
export class Child {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #handlers: ChildHandlers;
  readonly #stderr: string[] = [];
  readonly #ended: Promise<void>;
  #resolveEnded: () => void = () => {};
  #spawnError: NodeJS.ErrnoException | undefined;
  #exited = false;
  #stopping = false;
  /** What the server did to lose its connection to us, while its process lived on. */
  #broke: string | undefined;
  #corked = false;

  constructor(service: Service, handlers: ChildHandlers) {
    this.#handlers = handlers;
    this.#ended = new Promise(resolve => {
      this.#resolveEnded = resolve;
    });
    this.#process = spawn(service.command, service.args, {
      shell: false,
      detached: true,
      env: { ...inheritedEnvironment(service.env_allow), ...service.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(service.cwd === undefined ? {} : { cwd: service.cwd }),
    });
    this.#listen(service.limits.line_bytes);
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  get stderrTail(): string[] {
    return [...this.#stderr];
  }

  /** Resolves when the process has ended. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Writes one message. False when the process can no longer read it: then it was not delivered. */
  write(line: string): boolean {
    const { stdin } = this.#process;
    if (this.#exited || !stdin.writable || stdin.writableLength > UNREAD_MAX_BYTES) return false;
    if (!this.#corked) {
      // All messages of one turn of the event loop leave in one system call.
      this.#corked = true;
      stdin.cork();
      process.nextTick(() => {
        this.#corked = false;
        stdin.uncork();
      });
    }
    stdin.write(`${line}\n`);
    return true;
  }

  /** Ends the process: stdin, then SIGTERM, then SIGKILL to the whole group (MCP lifecycle, shutdown over stdio). */
  async stop(stepMs = STOP_STEP_MS): Promise<void> {
    this.#stopping = true;
    this.#process.stdin.end();
    if (await this.#endsWithin(stepMs)) return;
    this.#signal('SIGTERM');
    if (await this.#endsWithin(stepMs)) return;
    this.#signal('SIGKILL');
    await this.#ended;
  }

  kill(): void {
    this.#signal('SIGKILL');
  }

  #listen(lineBytes: number): void {
    const child = this.#process;
    const { onLine, onLineTooLong, onStderr } = this.#handlers;
    child.stdout.on('data', createLineReader({ maxBytes: lineBytes, onLine, onTooLong: onLineTooLong }));
    const keep = (line: string) => {
      this.#stderr.push(line);
      if (this.#stderr.length > STDERR_LINES) this.#stderr.shift();
      onStderr(line);
    };
    child.stderr.on('data', createLineReader({ maxBytes: STDERR_LINE_BYTES, onLine: keep, onTooLong: keep }));
    // A pipe that breaks is the death of the child, which 'exit' reports with its reason.
    for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe.on('error', () => {});
    // A process that lives on without them can neither be asked nor answer.
    child.stdout.on('close', () => this.#lost('stdout'));
    child.stdin.on('close', () => this.#lost('stdin'));
    child.on('error', error => {
      this.#spawnError = error;
      if (child.pid === undefined) this.#finish(null, null);
    });
    child.on('exit', (code, signal) => {
      this.#signal('SIGKILL');
      setTimeout(() => this.#finish(code, signal), PIPE_GRACE_MS).unref();
    });
    child.on('close', (code, signal) => this.#finish(code, signal));
  }

  /** On an ordinary exit the pipes close first: the exit itself, with its code, is waited for. */
  #lost(pipe: string): void {
    if (this.#stopping) return;
    setTimeout(() => {
      if (this.#exited) return;
      this.#broke ??= `child closed its ${pipe}`;
      this.#signal('SIGKILL');
    }, PIPE_GRACE_MS).unref();
  }

  #finish(code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#exited) return;
    this.#exited = true;
    for (const pipe of [this.#process.stdin, this.#process.stdout, this.#process.stderr]) pipe.destroy();
    this.#resolveEnded();
    this.#handlers.onExit({ reason: this.#explain(code, signal), stderr: this.stderrTail });
  }

  #explain(code: number | null, signal: NodeJS.Signals | null): string {
    const last = this.#stderr.at(-1);
    if (this.#spawnError) {
      const missing = this.#spawnError.code === 'ENOENT';
      const cure = 'command not found, or cwd does not exist: check both in the registry';
      return `child cannot be started (${missing ? cure : this.#spawnError.message})`;
    }
    const how = this.#broke ?? (signal ? `child was ended by ${signal}` : `child exits with ${code}`);
    return last === undefined ? how : `${how}: ${last}`;
  }

  /** To the whole group: a wrapper script's server must not outlive the script. */
  #signal(signal: NodeJS.Signals): void {
    if (this.#process.pid === undefined) return;
    try {
      process.kill(-this.#process.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  async #endsWithin(ms: number): Promise<boolean> {
    const timer = new AbortController();
    const late = delay(ms, false, { signal: timer.signal }).catch(() => false);
    const ended = await Promise.race([this.#ended.then(() => true), late]);
    timer.abort();
    return ended;
  }
}

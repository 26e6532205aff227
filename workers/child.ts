import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { withLastWords } from '../mesh/last-words.ts';
import type { Service } from '../mesh/registry.ts';
import type { WireText } from '../mesh/wire-text.ts';
import { type ChildCgroup, cgroupBase, createCgroup } from './child/cgroup.ts';
import { type ChildEnvironment, createEnvironment } from './child/environment.ts';
import { launchLine } from './child/launcher.ts';
import { MessagePipe } from './child/message-pipe.ts';
import { killFamily, newTag, processes, sweepOrphans } from './child/orphans.ts';
import { HAS_PROC } from './child/process-table.ts';
import { StderrTail } from './child/stderr-tail.ts';
import { NO_USAGE, type Usage, watchUsage } from './child/usage.ts';
import { createLineReader } from './line-reader.ts';

/** Why a run ended: it could not begin, by itself, by a signal, or because we ended it for what it did. */
export type ExitCause = 'spawn' | 'exit' | 'signal' | 'oom' | 'processes' | 'hung' | 'handshake';

export interface ChildExit {
  cause: ExitCause;
  /** In words, with the last line of stderr: "child exits with 127; last words: sh: foo: not found". */
  reason: string;
  stderr: string[];
}

interface ChildHandlers {
  onLine(line: WireText): void;
  onLineTooLong(head: string): void;
  onStderr(line: string): void;
  /** Called exactly once, also when the program could not be started. */
  onExit(exit: ChildExit): void;
}

interface Verdict {
  cause: ExitCause;
  reason: string;
}

/** A helper process may hold the pipes open after the server itself has ended. */
const PIPE_GRACE_MS = 200;
const STOP_STEP_MS = 2000;
const POLL_MS = 20;
const CGROUP_TRIES = 50;

let swept = false;

/** One run of an MCP stdio server: a process group of its own, never a shell; nothing of it outlives it. */
export class Child {
  readonly #log: Logger;
  readonly #handlers: ChildHandlers;
  readonly #tag = newTag();
  /** undefined: the system would not even try. */
  readonly #process: ChildProcessWithoutNullStreams | undefined;
  readonly #input: MessagePipe | undefined;
  readonly #stderr: StderrTail;
  readonly #ended = Promise.withResolvers<void>();
  readonly #environment: ChildEnvironment;
  readonly #unwatch: () => void;
  #cleared: Promise<void> | undefined;
  #cgroup: ChildCgroup | undefined;
  #usage = NO_USAGE;
  #spawnError: NodeJS.ErrnoException | undefined;
  #exited = false;
  #stopping = false;
  #spoke = false;
  /** What we ended it for; the first one counts. */
  #verdict: Verdict | undefined;

  constructor(service: Service, log: Logger, handlers: ChildHandlers) {
    this.#log = log;
    this.#handlers = handlers;
    this.#stderr = new StderrTail({ onLine: line => handlers.onStderr(line) });
    this.#environment = createEnvironment(service, this.#tag, log);
    this.#process = this.#spawn(service, this.#environment.variables);
    this.#input = this.#process && new MessagePipe(this.#process.stdin);
    if (this.#process) this.#listen(this.#process, service.limits.line_bytes);
    else process.nextTick(() => this.#finish(null, null));
    this.#unwatch = this.#bound(service);
    // While the first server is loading: what an earlier worker left may hold its port, lock or memory.
    if (!swept) void sweepOrphans(log);
    swept = true;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Of all its processes, about a second old at most. */
  get usage(): Usage {
    return this.#usage;
  }

  get stderrTail(): string[] {
    return this.#stderr.lines;
  }

  /** Writes one message. False when the process can no longer read it: then it was not delivered. */
  write(line: WireText, alone = false): boolean {
    return !this.#exited && this.#input?.write(line, alone) === true;
  }

  /**
   * Ends stdin, then SIGTERM, then SIGKILL to the whole group (MCP lifecycle, shutdown over stdio), and resolves when
   * nothing of it is left. A server behind a wrapper script has its time, too, when the script is gone at once.
   */
  async stop(stepMs = STOP_STEP_MS): Promise<void> {
    this.#stopping = true;
    this.#process?.stdin.end();
    if (!(await this.#goneWithin(stepMs))) {
      this.#signal('SIGTERM');
      if (!(await this.#goneWithin(stepMs))) this.#signal('SIGKILL');
    }
    await this.#ended.promise;
    this.#cleared ??= this.#clear();
    await this.#cleared;
  }

  /** Ends it at once, for this reason. */
  kill(cause: ExitCause, reason: string): void {
    if (this.#exited) return;
    this.#verdict ??= { cause, reason };
    this.#cgroup?.kill();
    this.#signal('SIGKILL');
  }

  #spawn(service: Service, env: Record<string, string>): ChildProcessWithoutNullStreams | undefined {
    const { command, args } = launchLine(service, env, this.#log);
    try {
      return spawn(command, args, {
        shell: false,
        detached: true,
        env,
        stdio: ['pipe', 'pipe', 'pipe'],
        ...(service.cwd === undefined ? {} : { cwd: service.cwd }),
      });
    } catch (error) {
      // Of some faults it throws (arguments beyond the system's size, a NUL byte) instead of telling them by 'error'.
      this.#spawnError = error as NodeJS.ErrnoException;
      return undefined;
    }
  }

  /** Puts it under its limits. Returns what ends the watch. */
  #bound(service: Service): () => void {
    const { pid } = this;
    if (pid === undefined) return () => {};
    processes.addLeader(pid, this.#tag);
    const base = cgroupBase(this.#log);
    this.#cgroup = base === undefined ? undefined : createCgroup(base, this.#tag, service, this.#log);
    // spawn has just returned from its exec, and setpriv and prlimit come first: no server runs outside for a moment.
    this.#cgroup?.add(pid);
    return watchUsage({
      tag: this.#tag,
      limits: service.limits,
      onUsage: usage => {
        this.#usage = usage;
      },
      onExcess: ({ cause, reason }) => this.kill(cause, `child ${reason}`),
    });
  }

  #listen(child: ChildProcessWithoutNullStreams, lineBytes: number): void {
    const { onLine, onLineTooLong } = this.#handlers;
    child.stdout.on('data', createLineReader({ maxBytes: lineBytes, onLine, onTooLong: onLineTooLong }));
    child.stdout.once('data', () => {
      this.#spoke = true;
    });
    child.stderr.on('data', (chunk: Buffer) => this.#stderr.write(chunk));
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
      if (!this.#stopping) this.#leave(code);
      setTimeout(() => this.#finish(code, signal), PIPE_GRACE_MS).unref();
    });
    child.on('close', (code, signal) => this.#finish(code, signal));
  }

  /** The leader has ended by itself: what it started does not outlive it. */
  #leave(code: number | null): void {
    if (code === 0 && this.#groupLives()) {
      const cure = 'the command must wait for the server or become it (exec)';
      this.#verdict ??= { cause: 'exit', reason: `child exits with 0 and leaves processes behind: ${cure}` };
    }
    this.#signal('SIGKILL');
  }

  /** On an ordinary exit the pipes close first: the exit itself, with its code, is waited for. */
  #lost(pipe: string): void {
    if (this.#stopping) return;
    setTimeout(() => this.kill('exit', `child closed its ${pipe}`), PIPE_GRACE_MS).unref();
  }

  #finish(code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#exited) return;
    this.#exited = true;
    const child = this.#process;
    for (const pipe of [child?.stdin, child?.stdout, child?.stderr]) pipe?.destroy();
    this.#stderr.flush();
    const { cause, reason } = this.#explain(code, signal);
    this.#ended.resolve();
    if (!this.#stopping) this.#cleared ??= this.#clear();
    this.#handlers.onExit({ cause, reason, stderr: this.stderrTail });
  }

  #explain(code: number | null, signal: NodeJS.Signals | null): Verdict {
    if (this.#spawnError) {
      const missing = this.#spawnError.code === 'ENOENT';
      const cure = 'command not found, or cwd does not exist: check both in the registry';
      const reason = `child cannot be started (${missing ? cure : this.#spawnError.message})`;
      return { cause: 'spawn', reason };
    }
    const { cause, reason } = this.#verdict ?? this.#ending(code, signal);
    return { cause, reason: withLastWords(reason, this.#stderr.last) };
  }

  #ending(code: number | null, signal: NodeJS.Signals | null): Verdict {
    if (code === 0 && !this.#spoke && !this.#stopping) {
      const cure = 'the command must stay and speak MCP on stdin and stdout';
      return { cause: 'exit', reason: `child exits with 0 and has said nothing: ${cure}` };
    }
    if (signal === null) return { cause: 'exit', reason: `child exits with ${code}` };
    if (!this.#cgroup?.outOfMemory()) return { cause: 'signal', reason: `child was ended by ${signal}` };
    return { cause: 'oom', reason: 'child used all of its memory (limits.memory_mb)' };
  }

  /** Everything that the run has started goes, wherever it went, and everything that was made for it. */
  async #clear(): Promise<void> {
    const { pid } = this;
    this.#unwatch();
    if (pid !== undefined) {
      this.#cgroup?.kill();
      await killFamily(this.#tag, this.#log);
      processes.removeLeader(pid);
    }
    for (let tries = 0; tries < CGROUP_TRIES && this.#cgroup?.remove() === false; tries += 1) {
      await delay(POLL_MS);
    }
    await this.#environment.remove();
  }

  /** To the whole group: a wrapper script's server must not outlive the script. False when there is nobody left. */
  #signal(signal: NodeJS.Signals | 0): boolean {
    const { pid } = this;
    if (pid === undefined) return false;
    try {
      return process.kill(-pid, signal);
    } catch (error) {
      // A set-user-id server may not be signalled by us (EPERM): stdin's end is all it gets.
      return (error as NodeJS.ErrnoException).code !== 'ESRCH';
    }
  }

  /** Where nobody waits for orphans (a container without an init), ended ones stay in the group: they do not count. */
  #groupLives(): boolean {
    if (!this.#signal(0)) return false;
    if (!HAS_PROC) return true;
    processes.refresh();
    return processes.family(this.#tag).some(({ group }) => group === this.pid);
  }

  async #goneWithin(ms: number): Promise<boolean> {
    const deadline = performance.now() + ms;
    while (!this.#exited || this.#groupLives()) {
      if (performance.now() >= deadline) return false;
      await delay(POLL_MS);
    }
    return true;
  }
}

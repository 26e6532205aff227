import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { descendants, ROOT } from './mesh-process.ts';

/** `node workers/main.ts` as a process, the same instance through all its starts. */
export interface WorkerProcess {
  readonly pid: number;
  readonly running: boolean;
  /** 0 before it listens for the first time. */
  readonly port: number;
  /** Its id in Consul. */
  readonly instance: string;
  /** Resolves when it listens; rejects when it ends instead. */
  listens(): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** Resolves with the exit code, or the signal, when it has ended. */
  ended(): Promise<number | NodeJS.Signals>;
  /** Starts it again on the same port; resolves when it listens. */
  restart(): Promise<void>;
  /** Processes below it: the MCP servers. */
  serverPids(): number[];
  /** SIGKILL; resolves when it has ended. */
  kill(): Promise<void>;
}

interface WorkerProcessOptions {
  service: string;
  register: boolean;
  env: Record<string, string>;
  /** Gets each line that it prints. */
  print(line: string): void;
}

const WORKER = join(ROOT, 'workers/main.ts');

interface Run {
  child: ChildProcess;
  listening: Promise<{ port: number; instance: string }>;
  exit: Promise<number | NodeJS.Signals>;
}

/** Spawns the worker; its port is a free one that it keeps from then on. */
export function startWorkerProcess(options: WorkerProcessOptions): WorkerProcess {
  let place = { port: 0, instance: '' };
  let run = spawnWorker(options, 0);
  const listens = async () => {
    place = await run.listening;
  };
  return {
    get pid() {
      return run.child.pid ?? 0;
    },
    get running() {
      return run.child.exitCode === null && run.child.signalCode === null;
    },
    get port() {
      return place.port;
    },
    get instance() {
      return place.instance;
    },
    listens,
    signal(signal) {
      run.child.kill(signal);
    },
    ended: () => run.exit,
    async restart() {
      run = spawnWorker(options, place.port);
      await listens();
    },
    serverPids: () => descendants(run.child.pid ?? 0).map(({ pid }) => pid),
    async kill() {
      run.child.kill('SIGKILL');
      await run.exit;
    },
  };
}

function spawnWorker({ service, register, env, print }: WorkerProcessOptions, port: number): Run {
  const args = [WORKER, service, '--port', String(port), ...(register ? [] : ['--no-register'])];
  const { PATH = '', HOME = '' } = process.env;
  // By the channel it learns of our own end, should that come without a word.
  const stdio = ['ignore', 'ignore', 'pipe', 'ipc'] as const;
  const child = spawn(process.execPath, args, { cwd: ROOT, env: { PATH, HOME, ...env }, stdio: [...stdio] });
  const { promise: listening, resolve, reject } = Promise.withResolvers<Awaited<Run['listening']>>();
  listening.catch(() => {});
  if (child.stderr) {
    createInterface(child.stderr).on('line', line => {
      print(`[${service} ${child.pid}] ${line}`);
      const entry = readEntry(line);
      if (entry) resolve(entry);
    });
  }
  const exit = once(child, 'exit').then(([code, signal]) => {
    reject(new Error(`the worker ended before it listened: ${signal ?? code}`));
    return (signal ?? code) as number | NodeJS.Signals;
  });
  return { child, listening, exit };
}

/** Port and id from the log line that says them. */
function readEntry(line: string): { port: number; instance: string } | undefined {
  if (!line.includes('"worker listens"')) return undefined;
  const { port, instance } = JSON.parse(line) as { port: number; instance: string };
  return { port, instance };
}

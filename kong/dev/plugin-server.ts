import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { z } from 'zod';
import { readJson } from '../../mesh/read-json.ts';
import type { Log } from './pdk.ts';

export interface PluginServerOptions {
  /** Program and arguments, --plugins-directory included. */
  command: string[];
  /** Set on top of the inherited environment. */
  env?: Record<string, string>;
}

/** One that somebody else has started: Kong without a start command. */
export interface SharedPluginServer {
  /** Where kong/plugin-server.sh leaves plugin.json and the socket. */
  folder: string;
}

/** What the gateway needs of a plugin server, whoever started it. */
export interface PluginServerHandle {
  socket: string;
  readonly pid: number | undefined;
  ready(): Promise<void>;
  close(): Promise<void>;
}

/** Kong restarts a dead plugin server at most once a second (measured on Kong 3.9.3). */
const RESTART_MS = 1000;
const START_MS = 10_000;
const STOP_MS = 3000;
const SOCKET_NAME = 'mesh.sock';

const dump = z.array(z.object({ Name: z.string(), Priority: z.number(), Phases: z.array(z.string()) }));

export interface PluginInfo {
  name: string;
  priority: number;
  phases: string[];
}

/** Kong's query command: what it prints is JSON and nothing else, and only the first plugin of it counts. */
export async function queryPlugin(options: PluginServerOptions | SharedPluginServer): Promise<PluginInfo> {
  const command =
    'folder' in options
      ? ['cat', join(options.folder, 'plugin.json')]
      : withEnvironment([...options.command, '--dump-all-plugins'], options.env);
  const [program = '', ...args] = command;
  const { stdout } = await promisify(execFile)(program, args);
  const first = dump.safeParse(readJson(stdout)).data?.[0];
  if (first === undefined)
    throw new Error(`not a plugin info table: ${command.join(' ')} printed ${stdout.slice(0, 500)}`);
  return { name: first.Name, priority: first.Priority, phases: first.Phases };
}

/** Its socket, and nothing of its life. */
export function joinPluginServer({ folder }: SharedPluginServer): PluginServerHandle {
  const socket = join(folder, SOCKET_NAME);
  return { socket, pid: undefined, ready: () => untilAccepted(socket), close: async () => {} };
}

/** The plugin server's process: started in a folder of its own, restarted when it dies, stopped by `close`. */
export class PluginServer implements PluginServerHandle {
  readonly folder = mkdtempSync(join(tmpdir(), 'kong-'));
  readonly socket = join(this.folder, SOCKET_NAME);
  readonly #argv: string[];
  readonly #log: Log;
  #child: ChildProcess | undefined;
  #closing = false;
  #restart: NodeJS.Timeout | undefined;

  constructor({ command, env }: PluginServerOptions, log: Log) {
    const place = ['--kong-prefix', this.folder, '--sock-name', SOCKET_NAME];
    // A gateway that is killed with -9 closes the pipe: the plugin server must not outlive it.
    this.#argv = withEnvironment([...command, ...place, '--exit-with-parent'], env);
    this.#log = log;
    this.#spawn();
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when the socket accepts connections. Rejects after 10 s. */
  ready(): Promise<void> {
    return untilAccepted(this.socket);
  }

  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#restart);
    const child = this.#child;
    if (child?.pid !== undefined) {
      const exited = once(child, 'exit');
      const force = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      child.kill('SIGTERM');
      await exited;
      clearTimeout(force);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  #spawn(): void {
    const [program = '', ...args] = this.#argv;
    const startedAt = Date.now();
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on('line', line => this.#log('info', `[mesh:${child.pid}] ${line}`));
    }
    child.stdin.on('error', () => {});
    child.once('error', error => this.#log('err', `cannot start the plugin server: ${error.message}`));
    child.once('exit', (code, signal) => {
      this.#child = undefined;
      if (this.#closing) return;
      this.#log('notice', `the plugin server terminated: ${signal ?? `exit ${code}`}`);
      this.#restart = setTimeout(() => this.#spawn(), Math.max(0, startedAt + RESTART_MS - Date.now()));
    });
  }
}

/** env(1) sets variables and becomes the program, as the shell does for Kong's start command. */
function withEnvironment(argv: string[], env: Record<string, string> = {}): string[] {
  return ['env', ...Object.entries(env).map(([name, value]) => `${name}=${value}`), ...argv];
}

async function untilAccepted(socket: string): Promise<void> {
  const deadline = Date.now() + START_MS;
  while (!(await accepts(socket))) {
    if (Date.now() > deadline) throw new Error(`the plugin server does not listen on ${socket}: see its log`);
    await sleep(20);
  }
}

function accepts(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path);
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

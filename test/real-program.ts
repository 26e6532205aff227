import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

/** The path of a program, or why there is none. */
export type FoundProgram = { binary: string } | { binary: undefined; reason: string };

/** A program of somebody else's that a test started. */
export interface RealProgram {
  pid: number;
  /** The last that it printed. */
  printed(): string;
  /** kill -9; also ends one that a test has stopped (SIGSTOP). Idempotent. */
  kill(): Promise<void>;
}

interface Naming {
  /** Variable that names the program's file, before all other places; `inFolder`: the folder where it is. */
  variable: string;
  inFolder?: boolean;
  /** What .ci/install-debian is told to install it. */
  install?: string;
}

interface StartOptions {
  /** Asked again and again. */
  isReady(): Promise<boolean>;
  /** Of what is the program's own, when the test's process ends before the program. */
  cleanUp?(): void;
}

const START_MS = 20_000;
const POLL_MS = 50;
const PRINTED_MAX = 4000;
const ATTEMPTS = 3;
const INSTALLED = join(import.meta.dirname, '..', '.mesh', 'bin');

/** Looks for a program where its variable says, else in PATH, then in .mesh/bin. */
export function findProgram(program: string, { variable, inFolder = false, install }: Naming): FoundProgram {
  const named = process.env[variable];
  const folders = (process.env.PATH ?? '').split(delimiter).filter(folder => folder !== '');
  const places = [...folders, INSTALLED].map(folder => join(folder, program));
  const candidates = named ? [inFolder ? join(named, program) : named] : places;
  const binary = candidates.find(isExecutable);
  if (binary !== undefined) return { binary };
  if (named)
    return {
      binary,
      reason: `${variable}=${named} ${inFolder ? `has no ${program}` : 'is no executable file'}`,
    };
  const installer = ['.ci/install-debian', install].filter(Boolean).join(' ');
  return { binary, reason: `no ${program} on PATH or in .mesh/bin; run ${installer} or set ${variable}` };
}

/**
 * For the `skip` of a test that wants real programs: false when they are all there, else the reason. Where CI is set, a
 * missing one is a failure of the test and no skip.
 */
export function skipWithout(...programs: FoundProgram[]): string | false {
  const missing = programs.find(found => found.binary === undefined);
  return missing && 'reason' in missing && !process.env.CI ? missing.reason : false;
}

/**
 * Starts a program and waits until it is ready. It does not outlive this process.
 * @throws Error with what it printed, when it is not ready within 20 s
 */
export async function startProgram(
  binary: string,
  args: readonly string[],
  { isReady, cleanUp = () => {} }: StartOptions,
): Promise<RealProgram> {
  const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const hasEnded = () => child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
  const onExit = () => {
    child.kill('SIGKILL');
    cleanUp();
  };
  process.once('exit', onExit);
  let printed = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', chunk => (printed = (printed + chunk).slice(-PRINTED_MAX)));
  const kill = async () => {
    process.off('exit', onExit);
    if (hasEnded()) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  try {
    await once(child, 'spawn');
    await untilReady(isReady, hasEnded);
  } catch (error) {
    await kill();
    throw new Error(`${binary} does not start: ${(error as Error).message}\n${printed}`);
  }
  return { pid: child.pid as number, printed: () => printed, kill };
}

/** Starts something on ports that are free, and again when another process has taken one of them before it did. */
export async function onFreePorts<T>(
  count: number,
  start: (ports: readonly number[]) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(await freePorts(count));
    } catch (error) {
      if (attempt === ATTEMPTS || !/in use/.test((error as Error).message)) throw error;
    }
  }
}

/** A port of 127.0.0.1 that nobody has just now. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port as number;
}

/** All open at once, so that they differ. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map(server => (server.address() as { port: number }).port);
  await Promise.all(servers.map(server => once(server.close(), 'close')));
  return ports;
}

async function untilReady(isReady: () => Promise<boolean>, hasEnded: () => boolean): Promise<void> {
  const deadline = Date.now() + START_MS;
  while (Date.now() < deadline) {
    if (hasEnded()) throw new Error('it exited');
    if (await isReady()) return;
    await pause(POLL_MS);
  }
  throw new Error(`it was not ready after ${START_MS / 1000} s`);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

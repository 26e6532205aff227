import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { descendants } from '../../e2e/mesh-process.ts';
import { type Caller, openCallers, type Shape, type Target } from './target.ts';
import { ToolCall } from './tool-call.ts';

/** What a bridge is compared with: no bridge at all, the least that one costs, and servers that need none. */

const script = (name: string) => join(import.meta.dirname, name);
const ECHO_FILE = script('echo.mjs');

/** Command line of the stdio server. */
export const ECHO: readonly [string, ...string[]] = [process.execPath, ECHO_FILE];

const NEWLINE = 10;
const NEWLINE_BYTES = Buffer.from('\n');
const ID = /^\{"jsonrpc":"2\.0","id":(\d+)/;
const ID_BYTES = 40;

/** The bridge without checks, that parses messages or only replaces their ids. */
export function startBareBridge(mode: 'parse' | 'splice'): Promise<Target> {
  const name = mode === 'parse' ? 'bare bridge' : 'bare bridge, splicing';
  return startServer(name, [script('bare-bridge.mjs'), mode, ...ECHO]);
}

/** The tool in the HTTP server itself. */
export function startHttpEcho(kind: 'node' | 'fastify'): Promise<Target> {
  return startServer(kind === 'node' ? 'node:http' : 'fastify', [script('http-echo.mjs'), kind]);
}

/** A program that prints its port. */
export async function startServer(name: string, args: readonly string[]): Promise<Target> {
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const pid = child.pid ?? 0;
  const [port] = await once(createInterface(child.stdout), 'line');
  const url = new URL(`http://127.0.0.1:${port}/mcp`);
  return {
    name,
    pids: () => ({ bridge: pid, ...serverBelow(pid) }),
    open: shape => openCallers(url, shape),
    stop: () => end(child),
  };
}

/** The stdio server that a process has started, as part of `pids`. */
export function serverBelow(pid: number): { server?: number } {
  const server = descendants(pid).find(({ command }) => command.includes(ECHO_FILE));
  return server === undefined ? {} : { server: server.pid };
}

/** The stdio server, called over its pipes. */
export async function startDirect(): Promise<Target> {
  const [command, ...args] = ECHO;
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = new Map<number, (line: Buffer) => void>();
  let queue: Buffer[] = [];
  const flush = () => {
    child.stdin.cork();
    for (const buffer of queue) child.stdin.write(buffer);
    child.stdin.uncork();
    queue = [];
  };
  const send = (bytes: Buffer) => {
    if (queue.length === 0) setImmediate(flush);
    queue.push(bytes, NEWLINE_BYTES);
  };
  child.stdout.on(
    'data',
    splitLines(line => {
      const id = Number(ID.exec(line.toString('latin1', 0, ID_BYTES))?.[1]);
      waiting.get(id)?.(line);
      waiting.delete(id);
    }),
  );
  const caller = ({ bytes, delay }: Shape): Caller => {
    const call = new ToolCall(bytes, delay);
    return {
      async call() {
        send(call.renew());
        const line = await new Promise<Buffer>(resolve => void waiting.set(call.id, resolve));
        call.check(line);
      },
      close() {},
    };
  };
  return {
    name: 'direct stdio',
    pids: () => ({ server: child.pid ?? 0 }),
    open: async shape => Array.from({ length: shape.callers }, () => caller(shape)),
    stop: () => end(child),
  };
}

/** Hands out lines without their ends. */
function splitLines(onLine: (line: Buffer) => void): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  return chunk => {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      parts.push(chunk.subarray(from, end));
      onLine(Buffer.concat(parts));
      parts = [];
      from = end + 1;
    }
    if (from < chunk.length) parts.push(chunk.subarray(from));
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { until } from '../../until.ts';
import { MESH } from '../helpers.ts';

// biome-ignore lint/suspicious/noExplicitAny: a message is whatever the test expects of it
export type Message = any;

/** A client on a program's stdin and stdout, without an SDK that would hide what is on the wire. */
export interface StdioClient {
  child: ChildProcess;
  /** Every line of stdout, as it was. */
  lines: string[];
  /** stderr so far. */
  errors(): string;
  send(message: string | object): void;
  /** Sends a request and resolves with its response. */
  ask(id: number | string, method: string, params?: object): Promise<Message>;
  /** The first message of a method. */
  hears(method: string): Promise<Message>;
  /** initialize and notifications/initialized. */
  greet(): Promise<Message>;
  /** Closes stdin; resolves with the exit code. */
  end(): Promise<number | null>;
}

/** `mesh` with these arguments; killed when the test ends. */
export function startMeshClient(
  t: TestContext,
  args: string[],
  env: Record<string, string> = {},
): StdioClient {
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, [MESH, ...args], { env: { PATH, HOME, ...env } });
  t.after(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit');
  const lines: string[] = [];
  let errors = '';
  child.stderr.on('data', chunk => (errors += chunk));
  createInterface(child.stdout).on('line', line => lines.push(line));
  const find = (what: string, matches: (message: Message) => boolean) =>
    until(
      what,
      () => lines.map(line => JSON.parse(line) as Message).find(matches),
      () => `${lines.join('\n')}\n${errors}`,
    );
  const send = (message: string | object) => {
    child.stdin.write(`${typeof message === 'string' ? message : JSON.stringify(message)}\n`);
  };
  const client: StdioClient = {
    child,
    lines,
    errors: () => errors,
    send,
    ask(id, method, params = {}) {
      send({ jsonrpc: '2.0', id, method, params });
      return find(`answer to ${id}`, message => message.id === id && message.method === undefined);
    },
    hears: method => find(method, message => message.method === method),
    async greet() {
      const params = {
        protocolVersion: '2025-11-25',
        capabilities: { sampling: {} },
        clientInfo: { name: 'test', version: '0' },
      };
      const answer = await client.ask('greeting', 'initialize', params);
      send({ jsonrpc: '2.0', method: 'notifications/initialized' });
      return answer;
    },
    async end() {
      child.stdin.end();
      await exited;
      return child.exitCode;
    },
  };
  return client;
}

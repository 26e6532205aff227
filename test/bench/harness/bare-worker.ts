import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { SCRIPTED } from '../../workers/helpers.ts';
import { cpuMs } from './processes.ts';

/** A worker process without Consul, with the scripted server, that is called directly; its counting can be switched. */
export interface BareWorker {
  /** Switches counting off or on. */
  count(counts: boolean): Promise<void>;
  /** Keeps so many calls of `echo` under way for `ms`; resolves with their number and the worker's CPU time in ms. */
  run(inFlight: number, ms: number): Promise<{ calls: number; cpuMs: number }>;
  /** Processor time that it has used, in ms. */
  cpuMs(): number;
  /** Reads `/metrics`; resolves with its length. */
  scrape(): Promise<number>;
  stop(): Promise<void>;
}

const MAIN = join(import.meta.dirname, '../../../workers/main.ts');
const SWITCHED = join(import.meta.dirname, 'switched-metrics.mjs');
const BODY = JSON.stringify({ command: 'echo', params: { text: 'x'.repeat(100) } });

/** Resolves when the server answers. */
export async function startBareWorker(): Promise<BareWorker> {
  const args = ['--import', SWITCHED, MAIN, '--no-register', '--', process.execPath, SCRIPTED];
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, args, {
    env: { PATH, HOME, MESH_ADVERTISE_ADDRESS: '127.0.0.1' },
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  const port = await portOf(child);
  const agent = new Agent({ keepAlive: true });
  const url = `http://127.0.0.1:${port}`;
  while (!(await fetch(`${url}/health`)).ok) await new Promise(resolve => setTimeout(resolve, 50));
  return {
    async count(counts) {
      const switched = once(child, 'message');
      child.send({ counts });
      await switched;
    },
    async run(inFlight, ms) {
      const before = cpuMs(child.pid ?? 0);
      const until = performance.now() + ms;
      let calls = 0;
      const caller = async () => {
        for (; performance.now() < until; calls += 1) await execute(agent, url);
      };
      await Promise.all(Array.from({ length: inFlight }, caller));
      return { calls, cpuMs: cpuMs(child.pid ?? 0) - before };
    },
    cpuMs: () => cpuMs(child.pid ?? 0),
    scrape: async () => (await (await fetch(`${url}/metrics`)).text()).length,
    async stop() {
      agent.destroy();
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

async function portOf(child: ChildProcess): Promise<number> {
  if (!child.stderr) throw new Error('no stderr');
  const printed: string[] = [];
  for await (const line of createInterface(child.stderr)) {
    printed.push(line);
    if (!line.includes('"worker listens"')) continue;
    child.stderr.resume();
    return JSON.parse(line).port;
  }
  throw new Error(`the worker does not start:\n${printed.join('\n')}`);
}

function execute(agent: Agent, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': BODY.length };
    const call = request(`${url}/execute`, { method: 'POST', agent, headers }, response => {
      response.resume();
      response.once('end', resolve);
      if (response.statusCode !== 200) reject(new Error(`status ${response.statusCode}`));
    });
    call.once('error', reject);
    call.end(BODY);
  });
}

import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import { adHocService, type Service } from '../../mesh/registry.ts';
import type { HangTimes } from '../../workers/hang-watch.ts';
import { type ServerState, StdioServer } from '../../workers/stdio-server.ts';
import { untilWithin } from '../until.ts';
import { silentLog, toolCall } from './helpers.ts';

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/servers/${name}`, import.meta.url));
export const UNRULY = fixture('unruly.mjs');
export const HOSTILE = fixture('hostile.mjs');
const WRAPPER = fixture('wrapper.sh');

/** A service whose server is the unruly fixture. */
export function unrulyService(env: Record<string, string> = {}, overrides: Partial<Service> = {}): Service {
  const service = adHocService({ name: 'unruly', command: process.execPath, args: [UNRULY] });
  return { ...service, env, ...overrides };
}

/** The same behind the wrapper script. */
export function wrappedService(how: string, env: Record<string, string> = {}): Service {
  return unrulyService(env, { command: WRAPPER, args: [how, process.execPath, UNRULY] });
}

const EVENTUALLY_MS = 15_000;

export interface Started {
  server: StdioServer;
  /** Resolves with the reason when the server next enters that state. */
  until(state: ServerState): Promise<string>;
  /** The text that a tool answers with. */
  call(tool: string, args?: object, timeoutMs?: number): Promise<string>;
}

export function startServer(t: TestContext, service: Service, hang?: HangTimes): Started {
  const states = new EventTarget();
  const server = new StdioServer({
    service,
    log: silentLog,
    handshakeTimeoutMs: 10_000,
    ...(hang ? { hang } : {}),
    onState: (state, reason) => states.dispatchEvent(new CustomEvent(state, { detail: reason })),
  });
  server.start();
  t.after(() => server.stop());
  return {
    server,
    until: async state => ((await once(states as never, state)) as [CustomEvent<string>])[0].detail,
    async call(tool, args = {}, timeoutMs = 10_000) {
      const request = readMessage(JSON.stringify(toolCall(1, tool, args))) as RpcRequest;
      const answer = JSON.parse((await server.call(request, { timeoutMs })).toString());
      return answer.result.content[0].text;
    },
  };
}

/** Whether there is such a process, and it is no zombie. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Pids of its children, zombies included. */
export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(candidate => candidate > 0 && parentOf(candidate) === pid);
}

/** `until`, where that is the name of something else. */
export async function eventually(condition: () => boolean, instead: () => unknown = () => ''): Promise<void> {
  await untilWithin(EVENTUALLY_MS)(String(condition), condition, () => JSON.stringify(instead()));
}

function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return undefined;
  }
}

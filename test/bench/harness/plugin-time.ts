import { join } from 'node:path';
import type { BenchGateway } from './gateway.ts';
import { sendCalls } from './load.ts';
import { type Frame, profileProcess, readModules, type Sample } from './profile.ts';
import type { Shape } from './target.ts';

/** Where the plugin server's time goes, in microseconds for one request. */
export interface PluginTime {
  /** Our modules, and what they call of Node and of packages: while a request is decided on, and all that is in no request. */
  access: number;
  /** The same while it is learnt how it went. */
  log: number;
  /** Kong's PDK, the plugin server and MessagePack. */
  rpc: number;
  /** Node on its own, the collection of garbage. */
  rest: number;
  /** Our modules by file, self time, the dearest first. */
  modules: [file: string, us: number][];
}

type Owner = 'access' | 'log' | 'rpc' | 'rest' | 'idle';

const BUNDLE = 'mcp-mesh.cjs';
const RPC = /kong-pdk|server\.cjs|@msgpack/;
/** What the log phase begins with; all of it is synchronous from there. */
const LOG = new Set(['log', 'learn', 'readOutcome']);
const SHOWN = 12;

/** Sends so many calls through a gateway whose plugin server is preloaded with PROFILED. */
export async function profilePlugin(gateway: BenchGateway, calls: number, shape: Shape): Promise<PluginTime> {
  const send = () => sendCalls(gateway, shape, calls);
  const samples = await profileProcess(gateway.pluginServer, gateway.folder, send);
  return divide(samples, calls, readModules(join(gateway.folder, 'plugins', BUNDLE)));
}

function divide(samples: readonly Sample[], calls: number, moduleAt: (line: number) => string): PluginTime {
  const sums: Record<Owner, number> = { access: 0, log: 0, rpc: 0, rest: 0, idle: 0 };
  const modules = new Map<string, number>();
  for (const { us, frames } of samples) {
    const owner = ownerOf(frames);
    sums[owner] += us / calls;
    if (owner !== 'access' && owner !== 'log') continue;
    const file = moduleAt(frames.find(isOurs)?.line ?? 0);
    modules.set(file, (modules.get(file) ?? 0) + us / calls);
  }
  const { access, log, rpc, rest } = sums;
  const dearest = [...modules].toSorted(([, a], [, b]) => b - a).slice(0, SHOWN);
  return { access, log, rpc, rest, modules: dearest };
}

/** Of the innermost frame that says: what ours calls of Node is ours, what the PDK does for us is the PDK's. */
function ownerOf(frames: readonly Frame[]): Owner {
  if (frames[0]?.name === '(idle)' || frames[0]?.name === '(program)') return 'idle';
  const first = frames.find(frame => isOurs(frame) || RPC.test(frame.url));
  if (first === undefined) return 'rest';
  if (!isOurs(first)) return 'rpc';
  return frames.some(frame => isOurs(frame) && LOG.has(frame.name)) ? 'log' : 'access';
}

function isOurs({ url }: Frame): boolean {
  return url.endsWith(BUNDLE);
}

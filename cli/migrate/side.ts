import { pino } from 'pino';
import type { Era } from '../../mesh/eras.ts';
import type { JsonObject } from '../../mesh/jsonrpc.ts';
import { adHocService, type Service } from '../../mesh/registry.ts';
import type { ChildExit } from '../../workers/child.ts';
import { Connection } from '../../workers/connection.ts';
import { modernMeta, type ServerInfo, shakeHands } from '../../workers/handshake.ts';
import { Multiplexer } from '../../workers/multiplexer.ts';
import { Bridge } from '../connect/bridge.ts';
import type { Endpoint } from '../connect/link.ts';
import type { OldWay } from './entry.ts';

/** One of the two ways to a server, hands shaken. */
export interface Side {
  info: ServerInfo;
  /** Asks; errors of the server are answers, too. @throws MeshError when there is none in time */
  ask(method: string, params?: JsonObject): Promise<Answer>;
  close(): Promise<void>;
}

export interface Answer {
  result?: unknown;
  /** JSON-RPC's. */
  error?: JsonObject;
}

interface SideOptions {
  /** For the handshake, and for each answer. */
  timeoutMs: number;
  /** The era to speak, where the server speaks both. */
  prefer?: Era;
}

const log = pino({ level: 'silent' });
/** Bounds are for services of the mesh: the old server has none. */
const PLENTY_MB = 1_048_576;
const PLENTY = 65_536;

/** The service of a stdio server that is started as its client would, with the environment that we have. */
export function serviceOf(
  { command, args, env, cwd }: OldWay & { kind: 'stdio' },
  inherited: readonly string[],
): Service {
  const service = adHocService({ name: 'old', command, args });
  const { limits } = service;
  return {
    ...service,
    env,
    env_allow: [...inherited],
    cwd: cwd ?? '.',
    limits: {
      ...limits,
      memory_mb: PLENTY_MB,
      processes: PLENTY,
      open_files: PLENTY,
      line_bytes: 67_108_864,
    },
  };
}

/** Starts a stdio server. Both eras are tried: one of the old may end on the first question of the new. */
export async function startServer(service: Service, options: SideOptions): Promise<Side> {
  try {
    return await start(service, { prefer: 'modern', ...options });
  } catch (error) {
    if (!(error instanceof Ended)) throw error;
    return await start(service, { ...options, prefer: 'legacy' });
  }
}

/** Goes to an endpoint, as `mesh connect` does. */
export async function reach(endpoint: Endpoint, options: SideOptions): Promise<Side> {
  const { timeoutMs, prefer = 'modern' } = options;
  const bridge = new Bridge({
    endpoint,
    write: line => multiplexer.receive(line),
    tell: () => {},
    waitMs: timeoutMs,
  });
  const multiplexer = new Multiplexer({
    write(line) {
      bridge.receive(line.toString());
      return true;
    },
    exclusive: true,
    onNotification: () => {},
    log,
  });
  const close = () => bridge.close(0);
  try {
    const info = await shakeHands(multiplexer, { prefer, timeoutMs });
    return {
      info,
      close,
      async ask(method, params = {}) {
        const sent = info.era === 'modern' ? { ...params, _meta: modernMeta(params._meta) } : params;
        return toAnswer((await multiplexer.ask(method, sent, { timeoutMs })).value);
      },
    };
  } catch (error) {
    await close();
    throw new Error(`${endpoint.url}: ${(error as Error).message}`, { cause: error });
  }
}

class Ended extends Error {
  override name = 'Ended';
}

async function start(service: Service, { timeoutMs, prefer }: Required<SideOptions>): Promise<Side> {
  let exit: ChildExit | undefined;
  const connection = new Connection({
    service,
    log,
    exclusive: true,
    onNotification: () => {},
    onExit: ended => {
      exit = ended;
    },
  });
  try {
    const info = await connection.shakeHands({ prefer, timeoutMs });
    return {
      info,
      close: () => connection.stop(),
      ask: async (method, params = {}) =>
        toAnswer((await connection.ask(method, params, { timeoutMs })).value),
    };
  } catch (error) {
    await connection.stop();
    if (exit) throw new Ended(`the old server: ${(exit as ChildExit).reason}`, { cause: error });
    throw new Error(`the old server does not shake hands: ${(error as Error).message}`, { cause: error });
  }
}

function toAnswer({ result, error }: JsonObject): Answer {
  return error === undefined ? { result } : { error: error as JsonObject };
}

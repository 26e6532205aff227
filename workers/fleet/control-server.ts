import { chmodSync, statSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { readBounded } from '../../mesh/bounded-body.ts';
import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { isLogLevel, LOG_LEVELS, type LogLevel } from '../log-level.ts';
import { ControlError, connectControl, type Target } from './control-client.ts';
import { prepareFolder } from './control-path.ts';
import { FleetError } from './fleet-error.ts';
import type { FleetStatus } from './status.ts';

/** What can be asked of a fleet. */
export interface Controlled {
  status(): FleetStatus;
  scale(service: string, count: number): Promise<void>;
  restart(target: Target): Promise<void>;
  drain(instance: string): Promise<void>;
  logs(target: Target): Promise<Record<string, string[]>>;
  setLogLevel(target: Target, level: LogLevel): Promise<Record<string, string | null>>;
}

export interface ControlServer {
  /** Answers from now on; who asked before has waited. */
  serve(fleet: Controlled): void;
  close(): Promise<void>;
}

const BODY_BYTES = 64 * 1024;
const ROUTES = 'GET /status, GET /logs, POST /scale, POST /restart, POST /drain, POST /log-level';

/**
 * Listens at a Unix socket that only its owner may open: HTTP with JSON bodies. Holding it makes this the supervisor.
 * @throws Error when another supervisor holds it, or nothing can be put there
 */
export async function startControl(path: string): Promise<ControlServer> {
  prepareFolder(path);
  const fleet = Promise.withResolvers<Controlled>();
  const server = createServer((request, reply) => void serve(request, reply, fleet.promise));
  if (!(await listen(server, path))) {
    await requireStale(path);
    if (!(await listen(server, path))) throw new Error(`another supervisor has just started at ${path}`);
  }
  return {
    serve: fleet.resolve,
    async close() {
      const closed = new Promise(resolve => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** False when something is at the path already. */
function listen(server: Server, path: string): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const onError = (error: NodeJS.ErrnoException) =>
    error.code === 'EADDRINUSE'
      ? resolve(false)
      : reject(new Error(`${path}: ${error.message}`, { cause: error }));
  server.once('error', onError);
  // Between bind and chmod, too, nobody else may open it.
  const before = process.umask(0o177);
  server.listen(path, () => {
    server.off('error', onError);
    chmodSync(path, 0o600);
    resolve(true);
  });
  process.umask(before);
  return promise;
}

/** Removes the socket of a supervisor that is gone. @throws Error when one answers, or it is no socket */
async function requireStale(path: string): Promise<void> {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found && !found.isSocket()) throw new Error(`${path} is in the way: it is no socket, remove it`);
  try {
    const { pid } = await connectControl(path).status();
    throw new Error(
      `already running with pid ${pid} for this registry: stop that one first (socket ${path})`,
    );
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    if (!error.absent)
      throw new Error(`already running for this registry (socket ${path}): ${error.message}`);
  }
  // Only the one that was just found dead: who came between us has a new one.
  if (statSync(path, { throwIfNoEntry: false })?.ino === found?.ino) unlinkSync(path);
}

async function serve(
  request: IncomingMessage,
  reply: ServerResponse,
  ready: Promise<Controlled>,
): Promise<void> {
  reply.on('error', () => {});
  try {
    const body = await readBody(request);
    send(reply, 200, await handle(await ready, request, body));
  } catch (error) {
    const { message } = error as Error;
    const ours = error instanceof FleetError;
    if (!ours) process.stderr.write(`mcp-mesh: control: ${(error as Error).stack}\n`);
    send(reply, ours ? 400 : 500, { error: message });
  }
}

async function handle(fleet: Controlled, request: IncomingMessage, body: JsonObject): Promise<unknown> {
  const { pathname, searchParams } = new URL(request.url ?? '', 'http://control');
  const order = async (work: Promise<void>): Promise<FleetStatus> => {
    if (body.wait !== false) await work;
    // What is wrong with the order itself shows at once; what comes later is in the status.
    else await Promise.race([work, Promise.resolve()]);
    work.catch(() => {});
    return fleet.status();
  };
  switch (`${request.method} ${pathname}`) {
    case 'GET /status':
      return fleet.status();
    case 'GET /logs':
      return fleet.logs(readTarget(Object.fromEntries(searchParams)));
    case 'POST /scale': {
      const { service, instances } = body;
      if (typeof service !== 'string' || typeof instances !== 'number')
        throw new FleetError('scale needs {"service": text, "instances": number}');
      return order(fleet.scale(service, instances));
    }
    case 'POST /restart':
      return order(fleet.restart(readTarget(body)));
    case 'POST /drain': {
      if (typeof body.instance !== 'string') throw new FleetError('drain needs {"instance": id}');
      return order(fleet.drain(body.instance));
    }
    case 'POST /log-level':
      if (!isLogLevel(body.level))
        throw new FleetError(`log-level needs {"level": ${LOG_LEVELS.join(' | ')}}`);
      return fleet.setLogLevel(readTarget(body), body.level);
    default:
      throw new FleetError(`there is no ${request.method} ${pathname}, only ${ROUTES}`);
  }
}

function readTarget({ service, instance }: JsonObject): Target {
  if (typeof instance === 'string') return { instance };
  if (typeof service === 'string') return { service };
  throw new FleetError('name a service or an instance');
}

async function readBody(request: IncomingMessage): Promise<JsonObject> {
  const text = await readBounded(request, BODY_BYTES);
  if (text === undefined) throw new FleetError(`an order has at most ${BODY_BYTES} bytes`);
  if (text === '') return {};
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // Said below.
  }
  throw new FleetError('the body is not a JSON object');
}

function send(reply: ServerResponse, status: number, value: unknown): void {
  if (!reply.destroyed)
    reply.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

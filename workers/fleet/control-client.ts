import { type IncomingMessage, request } from 'node:http';
import { readBounded } from '../../mesh/bounded-body.ts';
import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { readJson } from '../../mesh/read-json.ts';
import type { LogLevel } from '../log-level.ts';
import type { FleetStatus } from './status.ts';

/** An instance by its id in Consul, or by its slot (`<service>#<number>`). */
export type Target = { service: string } | { instance: string };

/** How the command line speaks to the supervisor that runs on this host. Each rejects with ControlError. */
export interface ControlClient {
  status(): Promise<FleetStatus>;
  /** The next three resolve with the state when it is done, or gets no further; with `wait: false` at once. */
  scale(service: string, instances: number, options?: WaitOptions): Promise<FleetStatus>;
  restart(target: Target, options?: WaitOptions): Promise<FleetStatus>;
  drain(instance: string, options?: WaitOptions): Promise<FleetStatus>;
  /** The last lines of MCP servers, by slot. */
  logs(target: Target): Promise<Record<string, string[]>>;
  /** Has workers log at a level until they end; the level then in force, by slot, null where no worker answers. */
  setLogLevel(target: Target, level: LogLevel): Promise<Record<string, string | null>>;
}

interface WaitOptions {
  wait?: boolean;
}

/** No supervisor answers, or it refuses; the message says what would do. */
export class ControlError extends Error {
  override name = 'ControlError';
  /** Nobody is there to answer. */
  readonly absent: boolean;

  constructor(message: string, { absent = false, cause }: { absent?: boolean; cause?: unknown } = {}) {
    super(message, { cause });
    this.absent = absent;
  }
}

const ABSENT = new Set(['ENOENT', 'ECONNREFUSED', 'ENOTSOCK']);
const STATUS_TIMEOUT_MS = 5000;
const ANSWER_BYTES = 16 * 1024 * 1024;

/** Opens no connection yet. `path`: see controlPath. */
export function connectControl(path: string): ControlClient {
  const send = async (method: string, url: string, body?: JsonObject): Promise<unknown> => {
    const response = await ask(path, method, url, body);
    const answer = await readBounded(response, ANSWER_BYTES);
    if (answer === undefined) throw new ControlError('the answer is too long to be a supervisor’s');
    const value = readJson(answer);
    if (response.statusCode === 200) return value;
    const text = isObject(value) && typeof value.error === 'string' ? value.error : undefined;
    throw new ControlError(text ?? `the supervisor answers ${response.statusCode} to ${method} ${url}`);
  };
  const post = (url: string, body: JsonObject) => send('POST', url, body) as Promise<FleetStatus>;
  return {
    status: () => send('GET', '/status') as Promise<FleetStatus>,
    scale: (service, instances, options) => post('/scale', { service, instances, ...options }),
    restart: (target, options) => post('/restart', { ...target, ...options }),
    drain: (instance, options) => post('/drain', { instance, ...options }),
    logs: async target =>
      (await send('GET', `/logs?${new URLSearchParams(target)}`)) as Record<string, string[]>,
    setLogLevel: async (target, level) =>
      (await send('POST', '/log-level', { ...target, level })) as Record<string, string | null>,
  };
}

function ask(
  path: string,
  method: string,
  url: string,
  body: JsonObject | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const text = body && JSON.stringify(body);
    const headers = text
      ? { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
      : {};
    // An order may take minutes; a question may not.
    const timeout = method === 'GET' ? { timeout: STATUS_TIMEOUT_MS } : {};
    const call = request({ socketPath: path, method, path: url, headers, agent: false, ...timeout }, resolve);
    call.on('timeout', () =>
      call.destroy(new ControlError(`the supervisor at ${path} does not answer: is it stopped, or stuck?`)),
    );
    call.on('error', (cause: NodeJS.ErrnoException) => reject(explain(path, cause)));
    call.end(text);
  });
}

function explain(path: string, cause: NodeJS.ErrnoException): ControlError {
  if (cause instanceof ControlError) return cause;
  if (ABSENT.has(cause.code ?? '')) {
    const text = `no supervisor is running for this registry (${path}): start it with \`mesh up\` or \`npm start\``;
    return new ControlError(text, { absent: true, cause });
  }
  if (cause.code === 'EACCES')
    return new ControlError(`${path} belongs to another user: be that user`, { cause });
  return new ControlError(`the supervisor at ${path} cannot be asked: ${cause.message}`, { cause });
}

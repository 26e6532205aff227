import { randomUUID } from 'node:crypto';
import { type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { readBounded } from '../mesh/bounded-body.ts';
import { isObject, type JsonObject } from '../mesh/jsonrpc.ts';
import { HEADERS, MCP_PATH } from '../mesh/names.ts';
import { readJson } from '../mesh/read-json.ts';
import { clientSettings } from '../mesh/settings.ts';
import { CommandError } from './command.ts';
import { readUrl } from './option-values.ts';

/** The gateway's REST surface, as a caller meets it. */
export interface Gateway {
  /**
   * Asks under `/api/v1/mcp`. Resolves when the answer begins, with a status below 300.
   * @throws CommandError with what the gateway says is wrong, or that it cannot be reached
   */
  send(path: string, options?: SendOptions): Promise<Reply>;
}

interface SendOptions {
  /** JSON text; makes it a POST. */
  body?: string;
  accept?: string;
  signal?: AbortSignal;
}

export interface Reply {
  callId: string;
  /** Media type without parameters. */
  type: string;
  body: IncomingMessage;
}

const ANSWER_BYTES = 64 * 1024 * 1024;
const SHOWN_LENGTH = 300;

/** The gateway at `url`, or MESH_URL; the caller's key comes from MESH_API_KEY. Opens no connection yet. */
export function connectGateway(url?: string): Gateway {
  const settings = clientSettings();
  const base = url ?? readUrl('MESH_URL')(settings.url);
  const gateway: Gateway = {
    async send(path, options = {}) {
      const callId = randomUUID();
      const target = `${base}${MCP_PATH}${path}`;
      const response = await ask(target, callId, settings.key, options);
      const { statusCode = 0, headers } = response;
      const type = headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase() ?? '';
      const given = headers[HEADERS.callId];
      const reply = { callId: typeof given === 'string' ? given : callId, type, body: response };
      if (statusCode >= 200 && statusCode < 300) return reply;
      const error = refusal(statusCode, reply, await readText(reply), target);
      throw error.facts.code === 'unknown_service' ? await withServices(gateway, error) : error;
    },
  };
  return gateway;
}

async function withServices(gateway: Gateway, error: CommandError): Promise<CommandError> {
  const { message, facts } = error;
  try {
    const value = readJson(await readText(await gateway.send('')));
    const rows = isObject(value) && Array.isArray(value.services) ? value.services.filter(isObject) : [];
    const names = rows.map(({ service }) => String(service));
    const hints = [names.length === 0 ? 'you may use none' : `there are: ${names.join(', ')}`];
    return new CommandError(message, { facts, hints, cause: error });
  } catch {
    return error;
  }
}

/** The body of an answer. @throws CommandError when it is too long, or the connection ends before it does */
export async function readText({ body, callId }: Reply): Promise<string> {
  const text = await readBounded(body, ANSWER_BYTES).catch((cause: Error) => {
    throw new CommandError(`the connection was lost during the answer: ${cause.message}`, {
      facts: { code: 'connection_lost', call_id: callId },
      hints: hintsOf(callId),
      cause,
    });
  });
  if (text === undefined) throw new CommandError(`the answer is longer than ${ANSWER_BYTES} bytes`);
  return text;
}

/** What a failed call says: problem details (RFC 9457) of the mesh. */
export function toCommandError(problem: JsonObject, callId: string): CommandError {
  const { title, detail, call_id: own, advice } = problem;
  const id = typeof own === 'string' ? own : callId;
  const said = [title, detail].filter(part => typeof part === 'string' && part !== '');
  const message = [...new Set(said)].join(': ') || 'the call failed';
  const hints = [...(typeof advice === 'string' ? [advice] : []), ...hintsOf(id)];
  if (problem.code === 'unauthenticated')
    hints.unshift('MESH_API_KEY holds the API key or token of a caller.');
  return new CommandError(message, { facts: { ...problem, call_id: id }, hints });
}

function refusal(status: number, { type, callId }: Reply, text: string, target: string): CommandError {
  const value = readJson(text);
  if (isObject(value) && typeof value.code === 'string') return toCommandError(value, callId);
  const said = /html/.test(type) ? 'a web page' : text.trim().replaceAll(/\s+/g, ' ').slice(0, SHOWN_LENGTH);
  return new CommandError(
    `${target} answers ${status} and not as a gateway does: ${said || 'an empty body'}`,
    {
      facts: { code: 'no_gateway', status },
      hints: ['--url or MESH_URL names the gateway'],
    },
  );
}

function hintsOf(callId: string): string[] {
  return [`call ${callId}: \`mesh why ${callId}\` tells what became of it`];
}

/** Unlike fetch, this waits for as long as the caller does. Redirects are not followed: the key stays here. */
function ask(
  target: string,
  callId: string,
  key: string | undefined,
  { body, accept = 'application/json', signal }: SendOptions,
): Promise<IncomingMessage> {
  const url = new URL(target);
  const headers = {
    accept,
    [HEADERS.callId]: callId,
    ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
    ...(body === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) }),
  };
  const method = body === undefined ? 'GET' : 'POST';
  const send = url.protocol === 'https:' ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    const call = send(url, { method, headers, ...(signal ? { signal } : {}) }, resolve);
    call.on('error', (cause: NodeJS.ErrnoException) => reject(unreachable(url, callId, cause)));
    call.end(body);
  });
}

function unreachable(url: URL, callId: string, cause: NodeJS.ErrnoException): Error {
  if (cause.name === 'AbortError') return cause;
  if (cause.code === 'ECONNREFUSED') {
    return new CommandError(`no gateway listens at ${url.origin}`, {
      facts: { code: 'no_gateway' },
      hints: ['start the mesh with `mesh up`, or name its gateway by --url or MESH_URL'],
      cause,
    });
  }
  return new CommandError(`${url.origin} cannot be asked: ${cause.message || cause.code}`, {
    facts: { code: 'connection_lost', call_id: callId },
    hints: hintsOf(callId),
    cause,
  });
}

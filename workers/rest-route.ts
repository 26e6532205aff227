import type { FastifyInstance, FastifyReply } from 'fastify';
import { SERVER_REQUESTS } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import { isObject, type RpcRequest, readMessage, textAt } from '../mesh/jsonrpc.ts';
import { parseJson } from '../mesh/read-json.ts';
import { prefersStream } from './accept.ts';
import { bodyOf } from './body.ts';
import type { Host } from './host.ts';
import { findNameMismatch } from './modern/request.ts';
import { ServiceDescriber } from './openapi/document.ts';
import { readToolList } from './openapi/tool-list.ts';
import { callForRest, type RestCallOptions } from './rest/call.ts';
import { answerWithEvents, askForProgress } from './rest/call-events.ts';

/** What `command` may name beside a tool: requests that make sense without a session. */
const METHODS = new Set(SERVER_REQUESTS);

/**
 * Plain REST beside MCP: the answer's body is the result, or problem details (RFC 9457); for who would rather have
 * `text/event-stream`, a call is answered with events.
 */
export function addRestRoutes(app: FastifyInstance, host: Host): void {
  const ask = (message: RpcRequest, reply: FastifyReply, options: Partial<RestCallOptions> = {}) => {
    const { caller, headers } = reply.request;
    const mismatch = findNameMismatch(message, headers);
    if (mismatch) throw new MeshError('invalid_request', { detail: mismatch.message });
    return callForRest(host, message, { caller, ...options });
  };
  const answer = async (message: RpcRequest, reply: FastifyReply, options: Partial<RestCallOptions> = {}) => {
    if (!prefersStream(reply.request.headers.accept)) {
      return reply.type('application/json').send(await ask(message, reply, options));
    }
    const followed = askForProgress(message);
    return answerWithEvents(reply, follow => ask(followed, reply, { ...options, ...follow }));
  };

  app.post('/execute', (request, reply) => {
    const { command, params, ...options } = readExecution(bodyOf(request).toString());
    const message = METHODS.has(command) ? createRequest(command, params) : createCall(command, params);
    return answer(message, reply, options);
  });
  app.post<{ Params: { tool: string } }>('/tools/:tool', (request, reply) =>
    answer(createCall(request.params.tool, bodyOf(request).toString() || '{}'), reply),
  );
  app.get<{ Querystring: Query }>('/tools', async ({ query }, reply) =>
    reply.type('application/json').send(await ask(createRequest('tools/list', listParams(query)), reply)),
  );
  const describer = new ServiceDescriber();
  app.get('/openapi.json', async (request, reply) => {
    const list = await readToolList(params => ask(createRequest('tools/list', params), reply));
    return reply.type('application/json').send(describer.describe(host, request, list));
  });
}

type Query = Readonly<Record<string, string | string[]>>;

/** A list goes on behind its `nextCursor`. */
function listParams({ cursor }: Query): string {
  if (Array.isArray(cursor)) throw new MeshError('invalid_request', { detail: '"cursor" must stand once' });
  return JSON.stringify({ cursor });
}

interface Execution {
  command: string;
  /** JSON text, so that big integers reach the server as they were sent. */
  params: string;
  timeoutMs?: number;
}

function readExecution(text: string): Execution {
  const body = parse(text);
  const { command, timeout_ms: timeoutMs } = body;
  if (typeof command !== 'string' || command === '') {
    throw new MeshError('invalid_request', {
      detail: '"command" must name a tool or an MCP method such as tools/list',
    });
  }
  const unknown = Object.keys(body).find(key => !['command', 'params', 'timeout_ms'].includes(key));
  if (unknown !== undefined) {
    throw new MeshError('invalid_request', {
      detail: `unknown member "${unknown}"; there are command, params, timeout_ms`,
    });
  }
  if (timeoutMs !== undefined && !(Number.isInteger(timeoutMs) && (timeoutMs as number) > 0)) {
    throw new MeshError('invalid_request', {
      detail: '"timeout_ms" must be a whole number of milliseconds above 0',
    });
  }
  const params = textAt(text, ['params']) ?? '{}';
  return { command, params, ...(timeoutMs === undefined ? {} : { timeoutMs: timeoutMs as number }) };
}

function createCall(tool: string, argumentsText: string): RpcRequest {
  if (!isObject(parse(argumentsText))) {
    throw new MeshError('invalid_request', { detail: 'the arguments of a tool must be a JSON object' });
  }
  return createRequest('tools/call', `{"name":${JSON.stringify(tool)},"arguments":${argumentsText}}`);
}

function createRequest(method: string, paramsText: string): RpcRequest {
  const text = `{"jsonrpc":"2.0","id":0,"method":${JSON.stringify(method)},"params":${paramsText}}`;
  return readMessage(text) as RpcRequest;
}

function parse(text: string): Record<string, unknown> {
  const value = parseJson(text);
  if (!isObject(value)) throw new MeshError('invalid_request', { detail: 'the body must be a JSON object' });
  return value;
}

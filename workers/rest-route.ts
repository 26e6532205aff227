import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { type Era, RPC, SERVER_REQUESTS } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import { isObject, type RpcRequest, readMessage, textAt } from '../mesh/jsonrpc.ts';
import type { Caller } from './caller.ts';
import { NO_CLIENT } from './connection.ts';
import type { Host } from './host.ts';
import { findNameMismatch } from './modern/request.ts';
import type { Upstream } from './relay.ts';
import { readInputRequired, toLegacyResponse, toModernRequest } from './translate.ts';

/** What `command` may name beside a tool: requests that make sense without a session. */
const METHODS = new Set(SERVER_REQUESTS);

/** Plain REST beside MCP: the answer's body is the result, or problem details (RFC 9457). */
export function addRestRoutes(app: FastifyInstance, host: Host): void {
  const run = async (message: RpcRequest, reply: FastifyReply, timeoutMs?: number) => {
    const { caller, headers } = reply.request;
    const mismatch = findNameMismatch(message, headers);
    if (mismatch) throw new MeshError('invalid_request', { detail: mismatch.message });
    const options = { caller, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
    const text = await withServer(host, caller, async (server, era) => {
      if (era === 'legacy') return host.gate.call(server, message, options);
      return toLegacyResponse(
        message.method,
        await host.gate.call(server, toModernRequest(message, NO_CLIENT), options),
      );
    });
    return reply.type('application/json').send(resultOf(text));
  };

  app.post('/execute', (request, reply) => {
    const { command, params, timeoutMs } = readExecution(bodyText(request));
    const message = METHODS.has(command) ? createRequest(command, params) : createCall(command, params);
    return run(message, reply, timeoutMs);
  });
  app.get('/tools', (_request, reply) => run(createRequest('tools/list', '{}'), reply));
  app.post<{ Params: { tool: string } }>('/tools/:tool', (request, reply) =>
    run(createCall(request.params.tool, bodyText(request) || '{}'), reply),
  );
}

/** The caller's shared server, or one for this call alone where each client has its own. */
async function withServer(
  host: Host,
  { principal }: Caller,
  call: (server: Upstream, era: Era) => Promise<string>,
): Promise<string> {
  const { server } = await host.tenants.of(principal);
  const era = server.info?.era ?? 'legacy';
  if (host.service.isolation !== 'session') return call(server, era);
  const lease = await host.pool.lease({ prefer: era, handlers: { onNotification: () => {} } });
  try {
    return await call(lease.connection, lease.connection.info?.era ?? era);
  } finally {
    lease.release();
  }
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

function resultOf(responseText: string): string {
  if (readInputRequired(responseText)) {
    throw new MeshError('server_error', {
      detail: 'the server asks for input, which REST cannot give',
      delivered: 'yes',
    });
  }
  const { error } = JSON.parse(responseText) as { error?: { code: number; message: string } };
  if (!error) return textAt(responseText, ['result']) ?? 'null';
  const delivered = 'yes';
  const detail = error.message;
  if (error.code === RPC.invalidParams) throw new MeshError('invalid_arguments', { detail, delivered });
  if (error.code === RPC.methodNotFound) throw new MeshError('invalid_request', { detail, delivered });
  throw new MeshError('server_error', { detail, delivered });
}

function bodyText(request: FastifyRequest): string {
  return request.body === undefined ? '' : (request.body as Buffer).toString('utf8');
}

function parse(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new MeshError('parse_error', { detail: (cause as Error).message, cause });
  }
  if (!isObject(value)) throw new MeshError('invalid_request', { detail: 'the body must be a JSON object' });
  return value;
}

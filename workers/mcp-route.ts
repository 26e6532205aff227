import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { MeshError, toMeshError } from '../mesh/errors.ts';
import {
  type JsonObject,
  type RpcNotification,
  type RpcRequest,
  readMessage,
  resultText,
  textAt,
} from '../mesh/jsonrpc.ts';
import { HEADERS } from '../mesh/names.ts';
import { accepts } from './accept.ts';
import type { Relay } from './relay.ts';
import { createMcpReply } from './reply.ts';
import type { Session, Sessions } from './session.ts';
import type { StdioServer } from './stdio-server.ts';

interface McpRouteParts {
  server: StdioServer;
  relay: Relay;
  sessions: Sessions;
}

/** Revisions with an initialize handshake, newest first; all are served. */
const PROTOCOL_VERSIONS: readonly string[] = ['2025-11-25', '2025-06-18', '2025-03-26', '2024-11-05'];
const [LATEST_VERSION = ''] = PROTOCOL_VERSIONS;
/** Methods that change the one server for everybody, or need a way back to the client: not offered when it is shared. */
const NOT_SHARED = /^(logging\/setLevel|resources\/(un)?subscribe|tasks\/.*)$/;
const METHOD_NOT_FOUND = -32601;

/** `POST /mcp`: Streamable HTTP for clients of 2025-03-26 to 2025-11-25. */
export function addMcpRoute(app: FastifyInstance, { server, relay, sessions }: McpRouteParts): void {
  /** Requests in flight by session and id, so that a client can cancel its own and nobody else's. */
  const cancellable = new Map<string, AbortController>();

  app.post('/mcp', async (request, reply) => {
    if (!accepts(request.headers.accept, 'application/json')) {
      throw new MeshError('not_acceptable', {
        detail: 'Accept must list application/json and text/event-stream',
      });
    }
    const message = readMessage((request.body as Buffer | undefined)?.toString('utf8') ?? '');
    if (message.kind === 'request' && message.method === 'initialize') return initialize(message, reply);
    const session = requireSession(request, sessions);
    if (message.kind === 'request') return answer(message, session, request, reply);
    if (message.kind === 'notification' && message.method === 'notifications/cancelled')
      cancel(message, session);
    return reply.code(202).send();
  });
  for (const method of ['GET', 'DELETE'] as const) app.route({ method, url: '/mcp', handler: refuseMethod });

  const initialize = (message: RpcRequest, reply: FastifyReply) => {
    const { info } = server;
    if (!info)
      throw new MeshError('child_unavailable', { detail: 'the MCP server has not answered initialize yet' });
    const asked = String(message.params.protocolVersion);
    const protocolVersion = PROTOCOL_VERSIONS.includes(asked) ? asked : LATEST_VERSION;
    const result = { ...info, protocolVersion, capabilities: sharedCapabilities(info.capabilities) };
    reply.header(HEADERS.session, sessions.mint(protocolVersion));
    return sendJson(reply, resultText(message.idText, JSON.stringify(result)));
  };

  const answer = async (
    message: RpcRequest,
    session: Session,
    request: FastifyRequest,
    reply: FastifyReply,
  ) => {
    if (message.method === 'ping') return sendJson(reply, resultText(message.idText, '{}'));
    if (NOT_SHARED.test(message.method)) return sendJson(reply, notOffered(message));
    const key = `${session.id}:${message.idText}`;
    const aborter = new AbortController();
    cancellable.set(key, aborter);
    const streams = accepts(request.headers.accept, 'text/event-stream');
    const out = createMcpReply(reply, { idText: message.idText, callId: request.id, streams });
    try {
      out.finish(await relay(message, { onNotification: text => out.notify(text), signal: aborter.signal }));
    } catch (fault) {
      const error = toMeshError(fault);
      request.log.warn({ err: error, method: message.method }, 'call failed');
      out.fail(error);
    } finally {
      if (cancellable.get(key) === aborter) cancellable.delete(key);
    }
    return reply;
  };

  const cancel = (notification: RpcNotification, session: Session) => {
    const requestId = textAt(notification.text, ['params', 'requestId']);
    if (requestId !== undefined) cancellable.get(`${session.id}:${requestId}`)?.abort();
  };
}

function requireSession(request: FastifyRequest, sessions: Sessions): Session {
  const version = request.headers[HEADERS.protocolVersion];
  if (version !== undefined && !PROTOCOL_VERSIONS.includes(String(version))) {
    const detail = `MCP-Protocol-Version ${String(version)} is not served; use one of ${PROTOCOL_VERSIONS.join(', ')}`;
    throw new MeshError('invalid_request', { detail });
  }
  const token = request.headers[HEADERS.session];
  if (typeof token !== 'string') {
    throw new MeshError('invalid_request', { detail: 'Mcp-Session-Id is missing; initialize first' });
  }
  const session = sessions.read(token);
  if (!session)
    throw new MeshError('unknown_session', { detail: 'initialize again, without Mcp-Session-Id' });
  return session;
}

/** Only what can be kept for a client of a shared server. */
function sharedCapabilities(capabilities: JsonObject): JsonObject {
  const { logging: _logging, tasks: _tasks, ...rest } = capabilities;
  if (!rest.resources) return rest;
  const { subscribe: _subscribe, ...resources } = rest.resources as JsonObject;
  return { ...rest, resources };
}

function notOffered(message: RpcRequest): string {
  const error = { code: METHOD_NOT_FOUND, message: `${message.method} is not offered by a shared server` };
  return `{"jsonrpc":"2.0","id":${message.idText},"error":${JSON.stringify(error)}}`;
}

function sendJson(reply: FastifyReply, text: string): FastifyReply {
  return reply.type('application/json').send(text);
}

function refuseMethod(_request: FastifyRequest, reply: FastifyReply): never {
  reply.header('allow', 'POST');
  throw new MeshError('method_not_allowed', { detail: 'this endpoint answers POST' });
}

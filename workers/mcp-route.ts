import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { MODERN_VERSION, RPC } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import { type RpcMessage, readBody } from '../mesh/jsonrpc.ts';
import { HEADERS } from '../mesh/names.ts';
import { RpcError } from '../mesh/rpc-error.ts';
import type { WireText } from '../mesh/wire-text.ts';
import { accepts } from './accept.ts';
import { bodyOf } from './body.ts';
import type { Host } from './host.ts';
import type { Inbound } from './inbound.ts';
import { LegacyRoute } from './legacy/route.ts';
import { claimsModern, findNameMismatch } from './modern/request.ts';
import { ModernRoute } from './modern/route.ts';
import { createMcpReply } from './reply.ts';

/** `/mcp`: MCP Streamable HTTP in both eras, told apart by what each request says of itself in its body. */
export function addMcpRoute(app: FastifyInstance, host: Host): void {
  const legacy = new LegacyRoute(host);
  const modern = new ModernRoute(host);
  const inboundOf = (request: FastifyRequest, reply: FastifyReply): Inbound => ({
    request,
    reply,
    caller: request.caller,
    forwarded: host.peers.isForwarded(request),
  });

  const post = async (text: WireText, inbound: Inbound): Promise<FastifyReply> => {
    const { request, reply } = inbound;
    const body = readBody(text, host.service.limits.batch);
    if (Array.isArray(body)) {
      if (body.some(isModern))
        throw new MeshError('invalid_request', { detail: `${MODERN_VERSION} has no batches` });
      const requests = body.filter(message => message.kind === 'request');
      const [mismatch] = requests.flatMap(message => findNameMismatch(message, request.headers) ?? []);
      if (mismatch) throw mismatch;
      return await legacy.postBatch(body, inbound);
    }
    if (isModern(body))
      return body.kind === 'request' ? await modern.post(body, inbound) : reply.code(202).send();
    const mismatch = headerMismatch(body, request);
    if (!mismatch) return await legacy.post(body, inbound);
    createMcpReply(request, reply, { idText: 'idText' in body ? body.idText : 'null' }).fail(mismatch);
    return reply;
  };

  app.post('/mcp', (request, reply) => {
    if (!accepts(request.headers.accept, 'application/json')) {
      throw new MeshError('not_acceptable', {
        detail: 'Accept must list application/json and text/event-stream',
      });
    }
    const text = bodyOf(request);
    const answered = post(text, inboundOf(request, reply));
    return typeof text === 'string' ? answered : answered.finally(() => text.release());
  });
  app.get('/mcp', (request, reply) => legacy.get(inboundOf(request, reply)));
  app.delete('/mcp', (request, reply) => legacy.delete(inboundOf(request, reply)));
}

function isModern(message: RpcMessage): boolean {
  return message.kind !== 'response' && claimsModern(message.params);
}

/** A header that promises the modern era, or another name, than the body has may have passed somebody's policy. */
function headerMismatch(message: RpcMessage, request: FastifyRequest): RpcError | undefined {
  if (message.kind !== 'request') return undefined;
  if (request.headers[HEADERS.protocolVersion] !== MODERN_VERSION) {
    return findNameMismatch(message, request.headers);
  }
  const code = message.method === 'initialize' ? RPC.headerMismatch : RPC.invalidParams;
  return new RpcError(
    400,
    code,
    `MCP-Protocol-Version is ${MODERN_VERSION}, but params._meta does not say so`,
  );
}

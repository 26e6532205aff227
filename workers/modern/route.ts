import type { FastifyReply } from 'fastify';
import { META, MODERN_VERSION, RPC } from '../../mesh/eras.ts';
import { MeshError, toMeshError } from '../../mesh/errors.ts';
import { type RpcRequest, resultText } from '../../mesh/jsonrpc.ts';
import { RpcError } from '../../mesh/rpc-error.ts';
import { Canceller, type CancelSignal } from '../canceller.ts';
import type { ServerInfo } from '../connection.ts';
import type { Host } from '../host.ts';
import type { Inbound } from '../inbound.ts';
import { createMcpReply, type McpReply } from '../reply.ts';
import { errorOf } from '../translate.ts';
import { callForModern } from './call.ts';
import { listen } from './listen.ts';
import { checkParamHeaders, readModernRequest } from './request.ts';

/** Methods of the legacy era, and of the tasks that 2025-11-25 tried out: gone, whatever the server thinks. */
const REMOVED = new Set([
  'initialize',
  'ping',
  'logging/setLevel',
  'resources/subscribe',
  'resources/unsubscribe',
  'tasks/result',
  'tasks/list',
]);
/** HTTP status of an error that the server itself answered. */
const STATUS_OF = new Map<number, number>([
  [RPC.methodNotFound, 404],
  [RPC.missingCapability, 400],
]);

/** Streamable HTTP for clients of 2026-07-28: no sessions, one POST a request, and its end is a cancel. */
export class ModernRoute {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  async post(message: RpcRequest, inbound: Inbound): Promise<FastifyReply> {
    const { request, reply } = inbound;
    const gone = new Canceller();
    reply.raw.on('close', () => {
      if (!reply.raw.writableFinished) gone.abort();
    });
    const out = createMcpReply(request, reply, { idText: message.idText });
    try {
      await this.#answer(message, inbound, out, gone);
    } catch (fault) {
      const error = fault instanceof RpcError ? fault : toMeshError(fault);
      if (!gone.aborted)
        request.log.warn({ call_id: request.id, err: error, method: message.method }, 'call failed');
      out.fail(error);
    }
    return reply;
  }

  async #answer(message: RpcRequest, inbound: Inbound, out: McpReply, gone: CancelSignal): Promise<void> {
    const { request, caller } = inbound;
    const client = readModernRequest(message, request.headers);
    const { tenants } = this.#host;
    const tenant = await tenants.of(caller.principal);
    // Which headers a tool wants is told only to who may call it.
    if (message.method === 'tools/call') this.#host.gate.check(message, caller);
    await checkParamHeaders(message, request.headers, tenant.catalog);
    if (REMOVED.has(message.method)) {
      throw new RpcError(404, RPC.methodNotFound, `${message.method} is not a method of ${MODERN_VERSION}`);
    }
    const { info, reason } = tenant.server;
    if (!info) throw new MeshError('child_unavailable', { detail: reason });
    if (message.method === 'server/discover') {
      out.finish(discover(message, info));
      return;
    }
    if (message.method === 'subscriptions/listen') {
      listen(this.#host, tenant.subscriptions, message, { caller, out, closed: gone });
      return;
    }
    if (await this.#passOn(message, inbound, info)) {
      out.release();
      return;
    }
    const text = await callForModern(this.#host, { message, client, tenant, caller, info, out, gone });
    out.finish(text, STATUS_OF.get(errorOf(text)?.code ?? 0));
  }

  /** A call that waits at another worker is answered there. @throws RpcError on a state that is not ours */
  async #passOn({ params }: RpcRequest, inbound: Inbound, info: ServerInfo): Promise<boolean> {
    const { requestState: state } = params;
    if (typeof state !== 'string' || info.era === 'modern' || this.#host.service.isolation !== 'session')
      return false;
    return this.#host.peers.forward(this.#host.parking.ownerOf(state, inbound.caller.principal), inbound);
  }
}

/** The answer to `server/discover`, whatever era the server is of. */
function discover(message: RpcRequest, info: ServerInfo): string {
  const { tasks: _tasks, ...capabilities } = info.capabilities;
  const result = {
    resultType: 'complete',
    supportedVersions: [MODERN_VERSION],
    capabilities,
    ...(info.instructions === undefined ? {} : { instructions: info.instructions }),
    ttlMs: 0,
    cacheScope: 'private',
    _meta: { [META.serverInfo]: info.serverInfo },
  };
  return resultText(message.idText, JSON.stringify(result));
}

import type { FastifyReply } from 'fastify';
import { LEGACY_VERSIONS } from '../../mesh/eras.ts';
import { MeshError, toMeshError } from '../../mesh/errors.ts';
import {
  errorText,
  type RpcMessage,
  type RpcNotification,
  type RpcRequest,
  type RpcResponse,
  textAt,
} from '../../mesh/jsonrpc.ts';
import { HEADERS } from '../../mesh/names.ts';
import { RpcError } from '../../mesh/rpc-error.ts';
import type { WireText } from '../../mesh/wire-text.ts';
import { accepts } from '../accept.ts';
import type { Caller } from '../caller.ts';
import { type EventStream, openEventStream } from '../event-stream.ts';
import { isGranted } from '../guard.ts';
import type { Host } from '../host.ts';
import type { Inbound } from '../inbound.ts';
import { createMcpReply, type McpReply } from '../reply.ts';
import type { Subscriptions } from '../subscriptions.ts';
import type { Tenant } from '../tenants.ts';
import { callForLegacy, type LegacyUpstream } from './call.ts';
import { ClientSession } from './client-session.ts';
import { initialize } from './initialize.ts';
import { answerLocally } from './local.ts';

/** The only revision with batches. */
const BATCH_VERSION = '2025-03-26';
const RESUMABLE_SINCE = '2025-11-25';
const UPDATED = 'notifications/resources/updated';

/** Streamable HTTP for clients of 2024-11-05 to 2025-11-25. */
export class LegacyRoute {
  readonly #host: Host;
  /** Each session has a server of its own, which only the worker that began the session has. */
  readonly #own: boolean;

  constructor(host: Host) {
    this.#host = host;
    this.#own = host.service.isolation === 'session';
  }

  /** @throws MeshError */
  async post(message: RpcMessage, inbound: Inbound): Promise<FastifyReply> {
    const { reply, caller } = inbound;
    if (message.kind === 'request' && message.method === 'initialize') {
      const { text, token } = await initialize(this.#host, message, caller.principal);
      return reply.header(HEADERS.session, token).type('application/json').send(text);
    }
    const holder = message.kind === 'response' ? ClientSession.askedBy(message) : this.#holder(inbound);
    if (await this.#passOn(inbound, holder)) return reply;
    const session = this.#requireSession(inbound);
    if (message.kind !== 'request') {
      this.#take(message, session);
      return reply.code(202).send();
    }
    await this.#answer(message, session, inbound);
    return reply;
  }

  /** A batch of a 2025-03-26 client. @throws MeshError */
  async postBatch(messages: RpcMessage[], inbound: Inbound): Promise<FastifyReply> {
    const { request, reply } = inbound;
    if (await this.#passOn(inbound, this.#holder(inbound))) return reply;
    const session = this.#requireSession(inbound);
    if (session.claims.protocolVersion !== BATCH_VERSION)
      throw badBatch(`only clients of ${BATCH_VERSION} send batches`);
    const requests = messages.filter(message => message.kind === 'request');
    if (requests.some(({ method }) => method === 'initialize'))
      throw badBatch('initialize cannot be part of a batch');
    for (const message of messages) if (message.kind !== 'request') this.#take(message, session);
    if (requests.length === 0) return reply.code(202).send();
    const out = this.#replyTo(session, 'null', inbound);
    const texts = requests.map(message =>
      this.#respond(message, session, inbound.caller, out).then(String, fault =>
        fault instanceof RpcError
          ? fault.toText(message.idText)
          : errorText(message.idText, toMeshError(fault), request.id),
      ),
    );
    out.finish(`[${(await Promise.all(texts)).join(',')}]`);
    return reply;
  }

  /** The standing stream, or the rest of one that broke. @throws MeshError */
  async get(inbound: Inbound): Promise<FastifyReply> {
    const { request, reply } = inbound;
    if (!accepts(request.headers.accept, 'text/event-stream')) {
      throw new MeshError('not_acceptable', { detail: 'Accept must list text/event-stream' });
    }
    if (await this.#passOn(inbound, this.#holder(inbound))) return reply;
    const session = this.#requireSession(inbound);
    const open = () => openEventStream(reply);
    const last = request.headers['last-event-id'];
    if (typeof last === 'string' && this.#host.streams.resume(last, session.claims.id, open)) return reply;
    // Subscribed to before the stream is open: what changes once the client has its answer is told.
    const { subscriptions } = await this.#host.tenants.of(session.claims.principal);
    this.#listen(session, open(), subscriptions, inbound.caller);
    return reply;
  }

  /** Ends the session. @throws MeshError */
  async delete(inbound: Inbound): Promise<FastifyReply> {
    if (await this.#passOn(inbound, this.#holder(inbound))) return inbound.reply;
    const session = this.#requireSession(inbound);
    this.#host.sessions.end(session);
    if (this.#own) this.#host.pool.close(session.claims.id);
    return inbound.reply.code(204).send();
  }

  /** Has the worker that holds what the request is about answer it; false when that is this one, or is gone. */
  #passOn(inbound: Inbound, holder: string | undefined): false | Promise<boolean> {
    return holder !== undefined && this.#host.peers.forward(holder, inbound);
  }

  /** The worker that has the session's server, when it is another one. */
  #holder({ request, caller }: Inbound): string | undefined {
    const token = request.headers[HEADERS.session];
    if (!this.#own || typeof token !== 'string') return undefined;
    const claims = this.#host.tokens.read(token, caller.principal);
    return claims && !this.#host.pool.get(claims.id) ? token.split('.', 1)[0] : undefined;
  }

  #requireSession({ request, caller }: Inbound): ClientSession {
    const version = request.headers[HEADERS.protocolVersion];
    if (version !== undefined && !LEGACY_VERSIONS.includes(String(version))) {
      const detail = `MCP-Protocol-Version ${String(version)} is not served; use one of ${LEGACY_VERSIONS.join(', ')}`;
      throw new MeshError('invalid_request', { detail });
    }
    const token = request.headers[HEADERS.session];
    if (typeof token !== 'string') {
      throw new MeshError('invalid_request', { detail: 'Mcp-Session-Id is missing; initialize first' });
    }
    const claims = this.#host.tokens.read(token, caller.principal);
    const session = claims && this.#host.sessions.of(claims);
    if (session && (!this.#own || this.#host.pool.get(session.claims.id))) return session;
    throw new MeshError('unknown_session', { detail: 'initialize again, without Mcp-Session-Id' });
  }

  /** The shared server, or the session's own. */
  #upstreamOf(session: ClientSession, { server, subscriptions }: Tenant): LegacyUpstream {
    const own = this.#own ? this.#host.pool.get(session.claims.id) : undefined;
    if (own?.info)
      return { upstream: own, info: own.info, exclusive: true, subscriptions, busyLogging: () => false };
    if (!server.info) throw new MeshError('child_unavailable', { detail: server.reason });
    return {
      upstream: server,
      info: server.info,
      exclusive: false,
      subscriptions,
      busyLogging: () => server.logging,
    };
  }

  async #answer(message: RpcRequest, session: ClientSession, inbound: Inbound): Promise<void> {
    const out = this.#replyTo(session, message.idText, inbound);
    try {
      out.finish(await this.#respond(message, session, inbound.caller, out));
    } catch (fault) {
      const error = fault instanceof RpcError ? fault : toMeshError(fault);
      inbound.request.log.warn(
        { call_id: inbound.request.id, err: error, method: message.method },
        'call failed',
      );
      out.fail(error);
    }
  }

  /** The response's text. @throws MeshError, RpcError */
  async #respond(
    message: RpcRequest,
    session: ClientSession,
    caller: Caller,
    out: McpReply,
  ): Promise<WireText> {
    const target = this.#upstreamOf(session, await this.#host.tenants.of(session.claims.principal));
    // Not all of them come to the gate.
    this.#host.gate.check(message, caller);
    const local = answerLocally(message, session, target);
    if (local !== undefined) return local;
    const open = session.open(message.idText);
    try {
      const call = { session, caller, out, signal: open.canceller };
      return await callForLegacy(this.#host.gate, target, message, call);
    } finally {
      session.close(open);
    }
  }

  #replyTo({ claims }: ClientSession, idText: string, { request, reply }: Inbound): McpReply {
    // Older clients choke on the empty event that a resumable stream begins with.
    const resumable = claims.protocolVersion >= RESUMABLE_SINCE;
    return createMcpReply(request, reply, {
      idText,
      ...(resumable ? { resumable: () => this.#host.streams.create(claims.id) } : {}),
    });
  }

  /** A notification or a response of the client's. */
  #take(message: RpcNotification | RpcResponse, session: ClientSession): void {
    if (message.kind === 'response') {
      session.settle(message);
      return;
    }
    const requestId = textAt(message.text, ['params', 'requestId']);
    if (message.method === 'notifications/cancelled' && requestId !== undefined) {
      session.cancel(requestId);
    }
    if (message.method === 'notifications/roots/list_changed' && this.#own) {
      this.#host.pool.get(session.claims.id)?.notify(message.method);
    }
  }

  #listen(session: ClientSession, stream: EventStream, subscriptions: Subscriptions, caller: Caller): void {
    const mayRead = (uri: string) => isGranted(caller.grants, 'resources', uri);
    // What a session's own server says comes to its session by itself.
    session.listen(this.#own ? withoutUpdates(stream, mayRead) : stream);
    if (this.#own) return;
    const remove = subscriptions.add({
      filter: () => ({
        toolsListChanged: true,
        promptsListChanged: true,
        resourcesListChanged: true,
        resourceSubscriptions: [...session.subscriptions],
      }),
      mayRead,
      tell: text => stream.send(text),
    });
    stream.onClose(remove);
  }
}

function badBatch(detail: string): MeshError {
  return new MeshError('invalid_request', { detail });
}

/** The stream without updates of resources that its client may not read. */
function withoutUpdates(stream: EventStream, mayRead: (uri: string) => boolean): EventStream {
  const isMeant = (text: string) => {
    if (!text.includes(UPDATED)) return true;
    const { method, params } = JSON.parse(text) as { method?: unknown; params?: { uri?: unknown } };
    return method !== UPDATED || mayRead(String(params?.uri));
  };
  return {
    ...stream,
    get open() {
      return stream.open;
    },
    send(text, id) {
      if (isMeant(text)) stream.send(text, id);
    },
  };
}

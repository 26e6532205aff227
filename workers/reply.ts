import type { OutgoingHttpHeaders } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { errorHeaders, type MeshError } from '../mesh/errors.ts';
import { errorText } from '../mesh/jsonrpc.ts';
import { RpcError } from '../mesh/rpc-error.ts';
import { release, type WireText } from '../mesh/wire-text.ts';
import { accepts, prefersStream } from './accept.ts';
import { KEEP_ALIVE_MS, openEventStream } from './event-stream.ts';
import type { ResumableStream } from './legacy/resumable.ts';

/** A call that takes longer than this is worth a stream that its client can resume. */
const RESUMABLE_AFTER_MS = 1000;

/** The HTTP answer to one MCP request: one JSON body when that is all there is, else a stream. */
export interface McpReply {
  /** A notification or request that goes before the answer; false when the client reads no stream, or has gone. */
  send(text: string): boolean;
  /** The answer, which nobody else may use any more; `status` only shows while no stream has begun. */
  finish(text: WireText, status?: number): void;
  fail(error: MeshError | RpcError): void;
  /** Somebody else answers: nothing more comes from here. */
  release(): void;
}

interface McpReplyOptions {
  /** The request's id as JSON text. */
  idText: string;
  /** Makes the stream resumable, should it come to one. */
  resumable?: (() => ResumableStream) | undefined;
}

interface Outlet {
  send(data: string): void;
  end(): void;
  readonly open: boolean;
}

/**
 * Turns into an event stream with the first message before the answer, or when the answer is silent for so long that
 * a proxy would take the connection for dead.
 */
export function createMcpReply(
  request: FastifyRequest,
  reply: FastifyReply,
  options: McpReplyOptions,
): McpReply {
  const { idText, resumable } = options;
  const streams = accepts(request.headers.accept, 'text/event-stream');
  let outlet: Outlet | undefined;
  let finished = false;
  const open = (): Outlet => {
    if (outlet) return outlet;
    const stream = openEventStream(reply);
    const kept = resumable?.();
    kept?.attach(stream);
    outlet = kept ?? stream;
    return outlet;
  };
  const silence = streams ? setTimeout(open, resumable ? RESUMABLE_AFTER_MS : KEEP_ALIVE_MS) : undefined;
  if (resumable && prefersStream(request.headers.accept)) open();
  const finish = (text: WireText, status = 200) => {
    if (finished) return;
    finished = true;
    clearTimeout(silence);
    if (!outlet) {
      sendJson(reply.code(status).type('application/json'), text);
      return;
    }
    outlet.send(text.toString());
    release(text);
    outlet.end();
  };

  return {
    release() {
      finished = true;
      clearTimeout(silence);
    },
    send(text) {
      if (!streams || finished) return false;
      const stream = open();
      stream.send(text);
      return stream.open;
    },
    finish,
    fail(error) {
      if (error instanceof RpcError) {
        finish(error.toText(idText), error.status);
        return;
      }
      if (!outlet && !finished) reply.headers(errorHeaders(error));
      // A call that was not delivered is refused by its HTTP status; the failure of one that was is its JSON-RPC answer.
      finish(errorText(idText, error, request.id), error.delivered === 'no' ? error.status : 200);
    },
  };
}

function sendJson(reply: FastifyReply, text: WireText): void {
  if (typeof text === 'string') {
    reply.send(text);
    return;
  }
  const headers = reply.getHeaders() as OutgoingHttpHeaders;
  reply.hijack();
  const { raw, statusCode } = reply;
  raw.writeHead(statusCode, { ...headers, 'content-length': text.length });
  // In one system call.
  raw.cork();
  for (const piece of text.pieces) raw.write(piece);
  raw.end(() => text.release());
  raw.uncork();
}

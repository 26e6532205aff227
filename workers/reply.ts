import type { FastifyReply } from 'fastify';
import { errorHeaders, type MeshError } from '../mesh/errors.ts';
import { errorText } from '../mesh/jsonrpc.ts';
import { HEADERS } from '../mesh/names.ts';
import { type EventStream, KEEP_ALIVE_MS, openEventStream } from './event-stream.ts';

/** The HTTP answer to one MCP request: one JSON body when that is all there is, else a stream. */
export interface McpReply {
  notify(text: string): void;
  finish(text: string): void;
  fail(error: MeshError): void;
}

interface McpReplyOptions {
  /** The request's id as JSON text. */
  idText: string;
  callId: string;
  /** Whether the client reads event streams. */
  streams: boolean;
}

/**
 * Turns into an event stream with the first notification, or when the answer is silent for so long that a proxy
 * would take the connection for dead.
 */
export function createMcpReply(reply: FastifyReply, { idText, callId, streams }: McpReplyOptions): McpReply {
  let stream: EventStream | undefined;
  const open = () => {
    if (!stream) {
      reply.hijack();
      stream = openEventStream(reply.raw, { [HEADERS.callId]: callId });
    }
    return stream;
  };
  const silence = streams ? setTimeout(open, KEEP_ALIVE_MS) : undefined;
  const send = (text: string, status: number) => {
    clearTimeout(silence);
    if (!stream) {
      reply.code(status).type('application/json').send(text);
      return;
    }
    stream.send(text);
    stream.end();
  };

  return {
    notify(text) {
      if (streams) open().send(text);
    },
    finish: text => send(text, 200),
    fail(error) {
      if (!stream) reply.headers(errorHeaders(error));
      // A call that was not delivered is refused by its HTTP status; the failure of one that was is its JSON-RPC answer.
      send(errorText(idText, error, callId), error.delivered === 'no' ? error.status : 200);
    },
  };
}

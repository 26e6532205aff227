import type { FastifyReply } from 'fastify';
import { toMeshError, toProblem } from '../../mesh/errors.ts';
import { changeObject } from '../../mesh/json-text.ts';
import {
  changeRequest,
  type RpcNotification,
  type RpcRequest,
  readMessage,
  textAt,
} from '../../mesh/jsonrpc.ts';
import { Canceller } from '../canceller.ts';
import { type EventStream, KEEP_ALIVE_MS, openEventStream } from '../event-stream.ts';
import type { RestCallOptions } from './call.ts';

type Follow = Required<Pick<RestCallOptions, 'signal' | 'onNotification'>>;

/** Events by notification. */
const EVENTS: Readonly<Record<string, string>> = {
  'notifications/progress': 'progress',
  'notifications/message': 'log',
};

/**
 * Answers a call with events: `progress` and `log` as they come, then `result` or, as problem details, `error`. A call
 * that is refused before any of it is answered as any other: by its status. A client that goes away cancels it.
 * @throws MeshError when nothing was delivered and nothing was sent
 */
export async function answerWithEvents(
  reply: FastifyReply,
  call: (follow: Follow) => Promise<string>,
): Promise<FastifyReply> {
  const gone = new Canceller();
  reply.raw.on('close', () => {
    if (!reply.raw.writableFinished) gone.abort();
  });
  let stream: EventStream | undefined;
  const open = () => {
    stream ??= openEventStream(reply);
    return stream;
  };
  // In silence a proxy would take the connection for dead.
  const silence = setTimeout(open, KEEP_ALIVE_MS);
  const onNotification = (notification: RpcNotification) => {
    const event = EVENTS[notification.method];
    if (event !== undefined) open().send(dataOf(notification), undefined, event);
  };
  try {
    const result = await call({ signal: gone, onNotification });
    open().send(result, undefined, 'result');
  } catch (fault) {
    const error = toMeshError(fault);
    if (!stream && error.delivered === 'no') throw error;
    const { request } = reply;
    if (!gone.aborted) request.log.warn({ err: error, cause: error.cause }, 'call failed');
    open().send(JSON.stringify(toProblem(error, request.id)), undefined, 'error');
  } finally {
    clearTimeout(silence);
  }
  open().end();
  return reply;
}

/** The request with a progress token, whatever it had: its caller is told the progress by the stream alone. */
export function askForProgress(request: RpcRequest): RpcRequest {
  const set = { progressToken: '0' };
  return readMessage(changeRequest(request, ['params', '_meta'], { set }).text) as RpcRequest;
}

/** The params as the server wrote them, without the token. */
function dataOf({ text }: RpcNotification): string {
  const told = changeObject(text, ['params'], { remove: key => key === 'progressToken' });
  return textAt(told, ['params']) ?? '{}';
}

import { Agent, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { HOP_BY_HOP } from '../../mesh/hop-by-hop.ts';

interface Target {
  address: string;
  port: number;
}

const CONNECT_TIMEOUT_MS = 2000;
/** A connection for each: a pooled one may be closed by the other side just as a request goes out. */
const agent = new Agent({ keepAlive: false });

/**
 * Has a worker answer a request whose body has not been read, and hands its answer on as it comes. Resolves with false
 * when no connection could be made: then the request is as it was. Whichever side goes takes the other with it.
 */
export async function passOn(
  incoming: IncomingMessage,
  reply: ServerResponse,
  target: Target,
): Promise<boolean> {
  const outgoing = request({
    host: target.address,
    port: target.port,
    method: incoming.method ?? 'GET',
    path: incoming.url ?? '/',
    headers: endToEnd(incoming),
    agent,
    setHost: false,
  });
  const { promise: connected, resolve: settle } = Promise.withResolvers<boolean>();
  const { promise: answered, resolve: accept } = Promise.withResolvers<IncomingMessage | undefined>();
  const timer = setTimeout(() => outgoing.destroy(), CONNECT_TIMEOUT_MS);
  outgoing.once('socket', socket => socket.once('connect', () => settle(true)));
  outgoing.once('response', accept);
  // Errors and closes before and after these moments: settling twice changes nothing.
  outgoing.on('error', () => {});
  outgoing.once('close', () => {
    settle(false);
    accept(undefined);
  });
  const isConnected = await connected;
  clearTimeout(timer);
  if (!isConnected) return false;

  const abort = () => outgoing.destroy();
  reply.once('close', abort);
  if (reply.destroyed) abort();
  incoming.pipe(outgoing);
  const answer = await answered;
  if (!answer) {
    // What was sent may have been executed. The gateway says so in the catalogue's words.
    reply.destroy();
    return true;
  }
  reply.writeHead(answer.statusCode ?? 502, answer.statusMessage, endToEnd(answer));
  reply.flushHeaders();
  await pipeline(answer, reply).catch(() => {});
  return true;
}

/** As they were written, in their order. */
function endToEnd({ rawHeaders, headers }: IncomingMessage): string[] {
  const named = (headers.connection ?? '').split(',').map(name => name.trim().toLowerCase());
  const kept: string[] = [];
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const [name = '', value = ''] = rawHeaders.slice(index, index + 2);
    if (!HOP_BY_HOP.has(name.toLowerCase()) && !named.includes(name.toLowerCase())) kept.push(name, value);
  }
  return kept;
}

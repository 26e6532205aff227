import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { CommandError } from '../command.ts';
import { type Reply, readText, toCommandError } from '../gateway.ts';
import { readEvents } from './events.ts';
import type { Follower } from './progress.ts';

const EVENT_LENGTH = 64 * 1024 * 1024;

/** The JSON text of a call's result, of an answer in one piece or with events. @throws CommandError */
export async function awaitResult(reply: Reply, follower: Follower): Promise<string> {
  if (reply.type !== 'text/event-stream') return checked(await readText(reply), reply);
  try {
    for await (const { event, data } of readEvents(reply.body, EVENT_LENGTH)) {
      if (event === 'result') return checked(data, reply);
      if (event === 'error') throw toCommandError(readObject(data), reply.callId);
      if (event === 'progress') follower.progress(readObject(data));
      if (event === 'log') follower.log(readObject(data));
    }
  } catch (cause) {
    if (cause instanceof CommandError) throw cause;
    throw lost(reply, cause as Error);
  } finally {
    follower.end();
  }
  throw lost(reply);
}

function checked(text: string, { callId }: Reply): string {
  try {
    JSON.parse(text);
    return text;
  } catch (cause) {
    const facts = { code: 'protocol_error', call_id: callId };
    throw new CommandError('the answer is no JSON', { facts, cause });
  }
}

function lost({ callId }: Reply, cause?: Error): CommandError {
  const why = cause ? `: ${cause.message}` : '';
  return new CommandError(`the connection was lost before the result${why}`, {
    facts: { code: 'connection_lost', call_id: callId },
    hints: [`call ${callId}: \`mesh why ${callId}\` tells what became of it`],
    cause,
  });
}

function readObject(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

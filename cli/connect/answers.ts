import type { IncomingMessage } from 'node:http';
import { readBounded } from '../../mesh/bounded-body.ts';
import { type ErrorCode, MeshError } from '../../mesh/errors.ts';
import { changeObject, onOneLine } from '../../mesh/json-text.ts';
import { errorText, isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { readEvents } from '../call/events.ts';

/** Longest answer, in bytes, and longest event, in characters. */
export const ANSWER_MAX = 64 * 1024 * 1024;
const SHOWN_LENGTH = 200;

/** What an answer says, piece by piece. */
export interface Piece {
  /** JSON text on one line; undefined: an event that only tells where the stream is. */
  text: string | undefined;
  /** By which the stream can be taken up again behind this (2025-11-25, resumability). */
  eventId: string | undefined;
}

/** The messages in an answer of either form: one JSON document, or events. @throws Error when it breaks or is too long */
export async function* readPieces(answer: IncomingMessage): AsyncGenerator<Piece> {
  if (mediaType(answer) === 'text/event-stream') {
    for await (const { data, id } of readEvents(answer, ANSWER_MAX))
      yield { text: data.trim() === '' ? undefined : onOneLine(data), eventId: id };
    return;
  }
  const text = await readBounded(answer, ANSWER_MAX);
  if (text === undefined) throw new Error(`the answer is longer than ${ANSWER_MAX} bytes`);
  if (text.trim() !== '') yield { text: onOneLine(text), eventId: undefined };
}

export function mediaType({ headers }: IncomingMessage): string {
  return headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

/** A refusal: an answer whose status is not 2xx. */
export interface Refusal {
  status: number;
  /** Of the mesh's errors, in `error.data`. */
  code: string | undefined;
  delivered: unknown;
  retryAfterMs: number | undefined;
  /** The JSON-RPC error as it is to be told to the client, under the request's own id. */
  toText(idText: string): string;
  /** In words. */
  reason: string;
}

/** Reads what a refusal says; where it is no JSON-RPC error, one is made of it. */
export async function readRefusal(answer: IncomingMessage): Promise<Refusal> {
  const status = answer.statusCode ?? 0;
  const text = onOneLine((await readBounded(answer, ANSWER_MAX).catch(() => '')) ?? '');
  const error = readError(text);
  const after = Number(answer.headers['retry-after']);
  if (!error) {
    const said = text.trim().slice(0, SHOWN_LENGTH) || 'an empty body';
    const reason = `it answers ${status}: ${mediaType(answer).includes('html') ? 'a web page' : said}`;
    return {
      status,
      code: undefined,
      delivered: undefined,
      retryAfterMs: after > 0 ? after * 1000 : undefined,
      reason,
      toText: idText => errorText(idText, new MeshError(codeOf(status), { detail: reason })),
    };
  }
  const data = isObject(error.data) ? error.data : {};
  return {
    status,
    code: typeof data.code === 'string' ? data.code : undefined,
    delivered: data.delivered,
    retryAfterMs: typeof data.retry_after_ms === 'number' ? data.retry_after_ms : undefined,
    reason: String(error.message),
    toText: idText => changeObject(text, [], { set: { id: idText } }),
  };
}

function readError(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) && value.jsonrpc === '2.0' && isObject(value.error) ? value.error : undefined;
  } catch {
    return undefined;
  }
}

function codeOf(status: number): ErrorCode {
  if (status === 401) return 'unauthenticated';
  if (status === 403) return 'forbidden';
  if (status === 404) return 'unknown_path';
  if (status === 413) return 'too_large';
  if (status === 429) return 'rate_limited';
  if (status === 503) return 'no_healthy_instance';
  return status >= 500 ? 'worker_lost' : 'invalid_request';
}

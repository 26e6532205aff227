import { isAscii, isUtf8 } from 'node:buffer';
import type { FastifyContentTypeParser } from 'fastify';
import { MeshError } from '../mesh/errors.ts';

/** The body of a request that was read by `bodyReader`; none: undefined. */
export type Body = readonly Buffer[] | undefined;

/**
 * Reads bodies in the pieces in which they come, and as one where they are not ASCII: fastify's own parsers copy all.
 * Fails with MeshError `too_large`, `parse_error` (no UTF-8), `invalid_request` (it ended early).
 */
export function bodyReader(maxBytes: number): FastifyContentTypeParser {
  const tooLarge = () =>
    new MeshError('too_large', { detail: `the body is larger than limits.request_bytes (${maxBytes})` });
  return ({ headers }, payload, done) => {
    if (Number(headers['content-length']) > maxBytes) {
      done(tooLarge());
      return;
    }
    const pieces: Buffer[] = [];
    let size = 0;
    const end = (fault: Error | null, body?: Body) => {
      payload.off('data', take).off('end', finish).off('error', fail);
      done(fault, body);
    };
    const take = (piece: Buffer) => {
      size += piece.length;
      pieces.push(piece);
      if (size > maxBytes) end(tooLarge());
    };
    const finish = () => {
      if (pieces.every(isAscii)) return end(null, pieces);
      const whole = Buffer.concat(pieces);
      if (isUtf8(whole)) end(null, [whole]);
      else end(new MeshError('parse_error', { detail: 'the body is not UTF-8' }));
    };
    const fail = (cause: Error) =>
      end(new MeshError('invalid_request', { detail: `the body broke off (${cause.message})`, cause }));
    payload.on('data', take).on('end', finish).on('error', fail);
  };
}

import type { FastifyContentTypeParser, FastifyRequest } from 'fastify';
import { Chunk } from '../mesh/chunk.ts';
import { MeshError } from '../mesh/errors.ts';
import { strictText, type WireText } from '../mesh/wire-text.ts';

/** The body of a request that was read by `bodyReader`; '' where there is none. Whoever is done with it may release it. */
export function bodyOf({ body }: FastifyRequest): WireText {
  return (body as WireText | undefined) ?? '';
}

/**
 * Reads bodies in the pieces in which they come: fastify's own parsers copy all.
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
    const end = (fault: Error | null, body?: WireText) => {
      payload.off('data', take).off('end', finish).off('error', fail);
      done(fault, body);
    };
    const take = (piece: Buffer) => {
      size += piece.length;
      pieces.push(piece);
      if (size > maxBytes) end(tooLarge());
    };
    const finish = () => {
      const text = strictText(
        pieces,
        pieces.map(piece => new Chunk(piece)),
      );
      if (text !== undefined) end(null, text);
      else end(new MeshError('parse_error', { detail: 'the body is not UTF-8' }));
    };
    const fail = (cause: Error) =>
      end(new MeshError('invalid_request', { detail: `the body broke off (${cause.message})`, cause }));
    payload.on('data', take).on('end', finish).on('error', fail);
  };
}

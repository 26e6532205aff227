import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyRequest } from 'fastify';
import { type MeshError, toMeshError } from '../mesh/errors.ts';
import type { Grants, Limits } from '../mesh/grants.ts';
import { createVerifier, parsePublicKey } from '../mesh/identity.ts';
import { HEADERS } from '../mesh/names.ts';

/** Who calls, as the gateway signed it, and for which call. */
export interface Caller {
  principal: string;
  grants: Grants;
  limits: Limits;
  callId: string;
  /** Whether a gateway vouches for it; else this worker believes everybody, and listens on loopback only. */
  vouched: boolean;
  /** For the call's trace: when its HTTP request came, by performance.now(), and with which headers. */
  origin?: { at: number; headers: IncomingHttpHeaders };
}

/** The caller of a request, or why nobody vouches for it. */
export type ReadCaller = (request: FastifyRequest) => Caller | MeshError;

declare module 'fastify' {
  interface FastifyRequest {
    /** Set before any route of a caller's is reached. */
    caller: Caller;
    /** Why nobody vouches for it: such a request reaches no route of a caller's. */
    nobody: MeshError | undefined;
  }
}

const EVERYTHING: Grants = { allow: [{}], deny: [] };
const NO_LIMITS: Limits = {};

/** @throws Error naming what is wrong with a key */
export function createCallerReader(publicKeys: readonly string[], service: string): ReadCaller {
  if (publicKeys.length === 0) {
    return ({ id: callId, headers }) => ({
      principal: 'anonymous',
      grants: EVERYTHING,
      limits: NO_LIMITS,
      callId,
      vouched: false,
      origin: { at: performance.now(), headers },
    });
  }
  const verify = createVerifier({ publicKeys: publicKeys.map(parsePublicKey), service });
  return ({ id: callId, headers }) => {
    try {
      const { sub: principal, grants, limits } = verify(headers[HEADERS.identity]);
      const origin = { at: performance.now(), headers };
      return { principal, grants, limits, callId, vouched: true, origin };
    } catch (fault) {
      return toMeshError(fault);
    }
  };
}

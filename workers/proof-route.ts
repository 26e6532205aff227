import type { FastifyInstance } from 'fastify';
import { MeshError } from '../mesh/errors.ts';
import { isNonce, makeProof, PROOF_PATH } from '../mesh/instance-proof.ts';

interface ProofParts {
  /** As the registry names it. */
  service: string;
  /** The service's keys, newest first. */
  keys: readonly Buffer[];
  /** In Consul; known once the worker listens. */
  instanceId(): string;
  /** As this worker knows and advertises it: never the Host that a request came with, which the asker writes. */
  address(): string;
  port(): number;
}

/**
 * `GET /proof?nonce=…`: proves to a gateway, or to another worker, that this is an instance of the service. Anybody may
 * ask: an answer is good for the asker's own nonce and for this address only.
 */
export function addProofRoute(
  app: FastifyInstance,
  { service, keys, instanceId, address, port }: ProofParts,
): void {
  app.get(PROOF_PATH, async (request, reply) => {
    const { nonce } = request.query as { nonce?: unknown };
    if (!isNonce(nonce)) {
      throw new MeshError('invalid_request', { detail: 'nonce must be 16 to 64 random bytes in base64url' });
    }
    const place = { service, id: instanceId(), address: address(), port: port() };
    return reply.header('cache-control', 'no-store').send(makeProof(keys, nonce, place));
  });
}

import type { FastifyReply, FastifyRequest } from 'fastify';

/** Everybody is the same caller until gateways sign identities. */
export const ANONYMOUS = 'anonymous';

/** One HTTP request to the MCP endpoint, with what was found out about it before its message is looked at. */
export interface Inbound {
  request: FastifyRequest;
  reply: FastifyReply;
  /** The authenticated caller. */
  principal: string;
  /** Passed on by another worker of the service: it is answered here, and passed on no further. */
  forwarded: boolean;
}

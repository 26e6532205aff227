import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Caller } from './caller.ts';

/** One HTTP request to the MCP endpoint, with what was found out about it before its message is looked at. */
export interface Inbound {
  request: FastifyRequest;
  reply: FastifyReply;
  caller: Caller;
  /** Passed on by another worker of the service: it is answered here, and passed on no further. */
  forwarded: boolean;
}

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { pipeline } from 'node:stream/promises';
import type { ConnectionOptions } from 'node:tls';
import type { FastifyRequest } from 'fastify';
import type { Consul, Instance, Watch } from '../mesh/consul.ts';
import { MeshError } from '../mesh/errors.ts';
import { ownerHash } from '../mesh/names.ts';
import { requestProof } from '../mesh/proof-request.ts';
import type { Service } from '../mesh/registry.ts';
import { type MeshTls, toWorker } from '../mesh/tls.ts';
import { bodyOf } from './body.ts';
import type { Inbound } from './inbound.ts';

export interface Peers {
  /** Whether a request was passed on by another worker of this service. @throws MeshError `forbidden` on a forged mark */
  isForwarded(request: FastifyRequest): boolean;
  /** Has another worker answer the request; false when that worker is not there. Never for one passed on already. */
  forward(owner: string, inbound: Inbound): Promise<boolean>;
  close(): void;
}

interface PeersOptions {
  consul: Consul | undefined;
  service: Pick<Service, 'name' | 'service_name'>;
  keys: readonly Buffer[];
  /** undefined: plain HTTP. */
  tls?: MeshTls | undefined;
  /** Short name of this instance, once it listens. */
  self(): string;
}

const MARK = 'x-mesh-forward';
const MARK_LIFETIME_MS = 30_000;
const CONNECT_TIMEOUT_MS = 2000;
const FIRST_LOOK_MS = 2000;
/** A proof is good for so long. */
const PROOF_MS = 300_000;
const PROVEN_MAX = 1000;
/** What the other worker needs of the request; above all not this hop's own headers. */
const PASSED_ON =
  /^(accept|content-type|last-event-id|mcp-.*|origin|traceparent|tracestate|x-request-id|x-mesh-identity)$/;
const HOP_BY_HOP = /^(connection|keep-alive|transfer-encoding|content-length)$/;
const GONE = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT']);

/**
 * The other workers of the service: what one of them holds (a session's server, a parked call, a question to a client)
 * only that one can answer. A request is passed on once, marked with the service's key.
 */
export function createPeers({ consul, service, keys, tls, self }: PeersOptions): Peers {
  /** Since when an instance at a place is known to hold the service's key, by performance.now(). */
  const proven = new Map<string, number>();
  const closing = new AbortController();
  let watch: Watch | undefined;
  let instances: Instance[] = [];
  let looked = Promise.resolve();

  /** Most workers never need their peers: the watch begins with the first that does. */
  const look = (): Promise<void> => {
    if (!consul || watch) return looked;
    looked = new Promise(resolve => {
      setTimeout(resolve, FIRST_LOOK_MS).unref();
      const onChange = (current: Instance[]) => {
        instances = current;
        resolve();
      };
      watch = consul.watchInstances(service.service_name, onChange, () => resolve());
    });
    return looked;
  };
  const mark = (owner: string, expiry: string, body: Buffer, key = 0) =>
    createHmac('sha256', keys[key] ?? '')
      .update(
        [
          'forward',
          service.service_name,
          owner,
          expiry,
          createHash('sha256').update(body).digest('hex'),
        ].join('\0'),
      )
      .digest();

  /** Anybody may write an entry into Consul; what is passed on are a caller's session and arguments. */
  const isOurs = async ({ id, address, port }: Instance): Promise<boolean> => {
    const key = `${id} ${address} ${port}`;
    if (performance.now() - (proven.get(key) ?? Number.NEGATIVE_INFINITY) < PROOF_MS) return true;
    const options = { keys, timeoutMs: CONNECT_TIMEOUT_MS, signal: closing.signal, tls };
    const fault = await requestProof({ service: service.name, id, address, port }, options);
    if (proven.size >= PROVEN_MAX) proven.clear();
    if (!fault) proven.set(key, performance.now());
    return fault === undefined;
  };

  return {
    isForwarded(request) {
      const given = request.headers[MARK];
      if (given === undefined) return false;
      const [expiry = '', tag = ''] = String(given).split('.');
      const tagBytes = Buffer.from(tag, 'base64url');
      const body = Buffer.from(bodyOf(request).toString());
      const valid = keys.some((_key, i) => {
        const wanted = mark(self(), expiry, body, i);
        return tagBytes.length === wanted.length && timingSafeEqual(tagBytes, wanted);
      });
      if (valid && Number(expiry) > Date.now()) return true;
      throw new MeshError('forbidden', { detail: `${MARK} is not of a worker of this service` });
    },
    async forward(owner, inbound) {
      if (inbound.forwarded || owner === self()) return false;
      await look();
      const peer = instances.find(instance => ownerHash(instance.id) === owner);
      if (!peer || !(await isOurs(peer))) return false;
      const body = Buffer.from(bodyOf(inbound.request).toString());
      const expiry = String(Date.now() + MARK_LIFETIME_MS);
      const sealed = `${expiry}.${mark(owner, expiry, body).toString('base64url')}`;
      return passOn(peer, inbound, body, sealed, tls && toWorker(tls, service.name));
    },
    close() {
      watch?.close();
      closing.abort();
    },
  };
}

async function passOn(
  peer: Instance,
  { request, reply }: Inbound,
  body: Buffer,
  mark: string,
  secure: ConnectionOptions | undefined,
): Promise<boolean> {
  const headers = Object.fromEntries(
    Object.entries(request.headers).filter(([name]) => PASSED_ON.test(name)),
  );
  const outgoing = (secure ? httpsRequest : httpRequest)({
    ...secure,
    host: peer.address,
    port: peer.port,
    method: request.method,
    path: '/mcp',
    headers: { ...headers, [MARK]: mark, 'content-length': body.length },
    timeout: CONNECT_TIMEOUT_MS,
  });
  // Only until it is connected: a long silence of the answer is none of ours to judge.
  outgoing.on('timeout', () => {
    if (outgoing.socket?.connecting)
      outgoing.destroy(Object.assign(new Error('no connection'), { code: 'ETIMEDOUT' }));
  });
  outgoing.end(body);
  let answer: IncomingMessage;
  try {
    [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
  } catch (error) {
    if (GONE.has(String((error as NodeJS.ErrnoException).code))) return false;
    const detail = 'the connection to the worker that holds this was lost';
    throw new MeshError('worker_lost', { detail, delivered: 'unknown', cause: error });
  }
  reply.hijack();
  const kept = Object.entries(answer.headers).filter(([name]) => !HOP_BY_HOP.test(name));
  reply.raw.writeHead(answer.statusCode ?? 502, Object.fromEntries(kept));
  reply.raw.flushHeaders();
  // Whichever side goes first takes the other with it: for a modern client that is the cancel.
  await pipeline(answer, reply.raw).catch(() => {});
  outgoing.destroy();
  return true;
}

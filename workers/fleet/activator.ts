import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Consul } from '../../mesh/consul.ts';
import { errorHeaders, MeshError, toMeshError, toProblem } from '../../mesh/errors.ts';
import { createHostGuard, type HostGuard } from '../../mesh/host-guard.ts';
import {
  createVerifier,
  IDENTITY_CHALLENGE,
  parsePublicKey,
  type VerifyIdentity,
} from '../../mesh/identity.ts';
import { isNonce, makeProof, PROOF_PATH } from '../../mesh/instance-proof.ts';
import { errorText } from '../../mesh/jsonrpc.ts';
import { acceptCallId, HEADERS, instanceId } from '../../mesh/names.ts';
import type { Service } from '../../mesh/registry.ts';
import type { WorkerSettings } from '../../mesh/settings.ts';
import { createRegistration, type Registration } from '../registration.ts';
import { passOn } from './pass-on.ts';

export interface ActivatorOptions {
  service: Service;
  /** Of the service's workers: the activator stands in for one. */
  settings: WorkerSettings;
  consul: Consul;
  log: Logger;
  /** Port to listen at; 0: any. */
  port: number;
  /** Longest time that a call is held. The gateway's identity of a caller is good for 30 s at least. */
  holdMs: number;
  /** Calls held at once. Their bodies stay in their sockets: a held call costs some 64 KB at most. */
  heldMax: number;
  /**
   * Sees to it that an instance starts, and resolves with its place when its server is ready.
   * @throws MeshError when none will, or `signal` aborts
   */
  wake(signal: AbortSignal): Promise<{ address: string; port: number }>;
}

const RETRY_AFTER_MS = 5000;
const KEEP_ALIVE_TIMEOUT_MS = 75_000;
const ATTEMPTS = 3;
const RECONNECT_MS = 100;

/**
 * Stands in for a service that has no instance up: it is registered like one, with `role: activator`, which gateways
 * choose only when nothing else passes. It holds the calls that come, has an instance started, and passes them on,
 * streams included. Whoever is not let in by a worker is not let in here: a start costs more than a call.
 */
export class Activator {
  readonly #options: ActivatorOptions;
  readonly #address: string;
  readonly #server: Server;
  readonly #refuseHost: HostGuard;
  readonly #verify: VerifyIdentity | undefined;
  #port = 0;
  #registration: Registration | undefined;
  #held = 0;
  #calledAt = 0;

  private constructor(options: ActivatorOptions, address: string) {
    const { settings, service } = options;
    this.#options = options;
    this.#address = address;
    this.#refuseHost = createHostGuard({
      hosts: [address, ...settings.allowedHosts],
      origins: settings.allowedOrigins,
    });
    const publicKeys = settings.identityPublicKeys.map(parsePublicKey);
    this.#verify = publicKeys.length > 0 ? createVerifier({ publicKeys, service: service.name }) : undefined;
    this.#server = createServer((request, reply) => void this.#serve(request, reply));
    this.#server.keepAliveTimeout = KEEP_ALIVE_TIMEOUT_MS;
  }

  /** Listens, but is not registered yet. @throws Error when it cannot listen, or nothing would protect it */
  static async start(options: ActivatorOptions): Promise<Activator> {
    const { settings, consul, port } = options;
    const address = settings.advertiseAddress ?? (await consul.localAddress());
    const loopback = address === '::1' || address.startsWith('127.') || address === 'localhost';
    const authenticated = settings.identityPublicKeys.length > 0 && settings.serviceKeys.length > 0;
    if (!loopback && !authenticated && !settings.allowUnauthenticated) {
      throw new Error(
        `${address} is reachable from other machines and calls are not authenticated: set ` +
          'MESH_IDENTITY_PUBLIC_KEYS and MESH_SERVICE_KEYS, or MESH_ADVERTISE_ADDRESS=127.0.0.1',
      );
    }
    const activator = new Activator(options, address);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    activator.#server.once('error', reject);
    activator.#server.listen({ port, host: address }, resolve);
    await promise;
    activator.#port = (activator.#server.address() as AddressInfo).port;
    return activator;
  }

  /** Calls that wait for an instance. */
  get held(): number {
    return this.#held;
  }

  /** Epoch ms of the last call that came here. */
  get calledAt(): number {
    return this.#calledAt;
  }

  get port(): number {
    return this.#port;
  }

  /** Whether gateways are told of it. */
  get offered(): boolean {
    return this.#registration !== undefined;
  }

  offer(): void {
    if (this.#registration) return;
    const { consul, service, settings, log } = this.#options;
    const place = { host: settings.host, address: this.#address, port: this.#port };
    const registration = createRegistration({ consul, service, ...place, log });
    // Before it is registered: at no time is it to pass for a worker.
    registration.describe({ role: 'activator' });
    registration.report('ready', '');
    this.#registration = registration;
  }

  /** Goes out of the way. It still serves who does not know that yet. */
  async withdraw(): Promise<void> {
    const registration = this.#registration;
    this.#registration = undefined;
    await registration?.stop();
  }

  async close(): Promise<void> {
    await this.withdraw();
    const closed = new Promise(resolve => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, reply: ServerResponse): Promise<void> {
    const [path = ''] = (request.url ?? '').split('?', 1);
    const callId = acceptCallId(request.headers[HEADERS.callId]);
    reply.on('error', () => {});
    try {
      const refusal = this.#refuseHost(request.headers.host, request.headers.origin);
      if (refusal !== undefined) throw new MeshError('forbidden', { detail: refusal });
      if (path === PROOF_PATH) sendJson(reply, 200, this.#prove(request));
      else if (['/health', '/ready', this.#options.service.health_check].includes(path))
        sendJson(reply, 200, { status: 'passing', role: 'activator' });
      else await this.#hold(request, reply);
    } catch (fault) {
      if (!reply.headersSent) refuse(reply, toMeshError(fault), path, callId);
    }
  }

  #prove(request: IncomingMessage): object {
    const nonce = new URL(request.url ?? '', 'http://activator').searchParams.get('nonce');
    if (!isNonce(nonce)) throw new MeshError('invalid_request', { detail: 'nonce must be random base64url' });
    const { service, settings } = this.#options;
    const id = instanceId(service.name, settings.host, this.#port);
    const place = { service: service.name, id, address: this.#address, port: this.#port };
    return makeProof(settings.serviceKeys, nonce, place);
  }

  async #hold(request: IncomingMessage, reply: ServerResponse): Promise<void> {
    this.#verify?.(request.headers[HEADERS.identity]);
    const { service, heldMax, holdMs } = this.#options;
    const limit = service.limits.request_bytes;
    if (Number(request.headers['content-length'] ?? 0) > limit) {
      throw new MeshError('too_large', { detail: `the body is larger than limits.request_bytes (${limit})` });
    }
    if (this.#held >= heldMax) throw unavailable(`${heldMax} calls wait for it already`);
    const ending = new AbortController();
    const end = () => ending.abort();
    const late = setTimeout(end, holdMs);
    reply.once('close', end);
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
        const target = await this.#wait(ending.signal);
        if (reply.destroyed || (await passOn(request, reply, target))) return;
        // It has just gone: its end is known in a moment.
        await delay(RECONNECT_MS);
      }
      throw unavailable('no connection to it could be made');
    } finally {
      clearTimeout(late);
      reply.off('close', end);
      this.#calledAt = Date.now();
    }
  }

  async #wait(signal: AbortSignal): Promise<{ address: string; port: number }> {
    this.#held += 1;
    this.#calledAt = Date.now();
    try {
      return await this.#options.wake(signal);
    } finally {
      this.#held -= 1;
    }
  }
}

/** 503 for a call that nobody has had. */
export function unavailable(detail: string): MeshError {
  return new MeshError('child_unavailable', { detail, delivered: 'no', retryAfterMs: RETRY_AFTER_MS });
}

/** JSON-RPC on the MCP endpoint, problem details elsewhere: as a worker's. */
function refuse(reply: ServerResponse, error: MeshError, path: string, callId: string | undefined): void {
  const rpc = path === '/mcp';
  const headers = {
    ...errorHeaders(error),
    ...(error.code === 'unauthenticated' ? { 'www-authenticate': IDENTITY_CHALLENGE } : {}),
    ...(callId === undefined ? {} : { [HEADERS.callId]: callId }),
    'content-type': rpc ? 'application/json' : 'application/problem+json',
  };
  const body = rpc ? errorText('null', error, callId) : JSON.stringify(toProblem(error, callId));
  reply.writeHead(error.status, headers).end(body);
}

function sendJson(reply: ServerResponse, status: number, value: object): void {
  const headers = { 'content-type': 'application/json', 'cache-control': 'no-store' };
  reply.writeHead(status, headers).end(JSON.stringify(value));
}

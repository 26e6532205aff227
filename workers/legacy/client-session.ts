import { randomBytes } from 'node:crypto';
import { MeshError } from '../../mesh/errors.ts';
import {
  notificationText,
  type RpcRequest,
  type RpcResponse,
  rewriteAt,
  textAt,
} from '../../mesh/jsonrpc.ts';
import { Canceller } from '../canceller.ts';
import type { EventStream } from '../event-stream.ts';
import { InFlight } from '../in-flight.ts';
import type { AnswerMember } from '../multiplexer.ts';
import type { SessionClaims } from './session-token.ts';

const NEEDS = new Map([
  ['sampling/createMessage', 'sampling'],
  ['elicitation/create', 'elicitation'],
  ['roots/list', 'roots'],
]);

/** How long a person may take to answer a question. */
const ANSWER_MS = 300_000;

/** Where a message to the client can go: false when it cannot. */
export type Carrier = (text: string) => boolean;

interface OpenRequest {
  number: number;
  /** JSON text. */
  idText: string;
  canceller: Canceller;
}

/** What this worker remembers of a legacy session: its stream, what it asked its client, what it wants to hear. */
export class ClientSession {
  readonly claims: SessionClaims;
  /** Lowest level of logs that it wants; undefined: it did not say. */
  logLevel: string | undefined;
  /** URIs of resources that it follows. */
  readonly subscriptions = new Set<string>();
  lastUsed = Date.now();
  /** Its standing GET stream. */
  #listener: EventStream | undefined;
  readonly #asked = new Map<string, (response: RpcResponse) => void>();
  /** By a number of ours: an id as a key would be a text that V8 keeps until its next full collection. */
  readonly #open = new InFlight<number, OpenRequest>();
  #lastNumber = 0;
  readonly #owner: string;

  constructor(claims: SessionClaims, owner: string) {
    this.claims = claims;
    this.#owner = owner;
  }

  get listening(): boolean {
    return this.#listener?.open ?? false;
  }

  /** Nothing would be lost by forgetting it. */
  get disposable(): boolean {
    return (
      !this.listening &&
      this.#asked.size === 0 &&
      this.#open.size === 0 &&
      this.subscriptions.size === 0 &&
      this.logLevel === undefined
    );
  }

  /** A request that its client can cancel until it is closed. */
  open(idText: string): OpenRequest {
    this.#lastNumber += 1;
    const request = { number: this.#lastNumber, idText, canceller: new Canceller() };
    this.#open.set(request.number, request);
    return request;
  }

  close({ number }: OpenRequest): void {
    this.#open.delete(number);
  }

  /** Of several with one id, the last. */
  cancel(idText: string): void {
    const named = this.#open.values().findLast(request => request.idText === idText);
    named?.canceller.abort();
  }

  listen(stream: EventStream): void {
    this.#listener?.end();
    this.#listener = stream;
  }

  /** To the standing stream, which carries what belongs to no request. */
  tell(text: string): boolean {
    if (!this.listening) return false;
    this.#listener?.send(text);
    return true;
  }

  /**
   * Asks the client and resolves with its answer. The id names this worker, so that an answer that lands on another
   * one can be passed on.
   * @throws MeshError `invalid_request` when no stream of the client is open, or it does not answer within 5 minutes
   */
  ask(request: RpcRequest, withdrawn: AbortSignal, carrier: Carrier): Promise<AnswerMember> {
    const id = JSON.stringify(`${this.#owner}.${randomBytes(9).toString('base64url')}`);
    const text = rewriteAt(request.text.toString(), ['id'], id);
    return new Promise((resolve, reject) => {
      const settle = () => {
        this.#asked.delete(id);
        clearTimeout(timer);
        withdrawn.removeEventListener('abort', withdraw);
      };
      const withdraw = () => {
        settle();
        const params = { requestId: JSON.parse(id) as string, reason: 'withdrawn by the server' };
        carrier(notificationText('notifications/cancelled', params));
        reject(new MeshError('cancelled', { detail: 'the server withdrew its request' }));
      };
      const fail = (detail: string) => {
        settle();
        reject(new MeshError('invalid_request', { detail }));
      };
      // While it is asked the call's own clock stands still, and a legacy client that vanishes does not say so.
      const timer = setTimeout(() => fail('the client did not answer'), ANSWER_MS).unref();
      withdrawn.addEventListener('abort', withdraw, { once: true });
      this.#asked.set(id, response => {
        settle();
        resolve(memberOf(response));
      });
      if (!carrier(text) && !this.tell(text))
        fail(`${request.method} needs a client that reads event streams`);
    });
  }

  /** The client's answer to something that this session was asked here; false when it was not. */
  settle(response: RpcResponse): boolean {
    const resolve = this.#asked.get(JSON.stringify(response.id));
    resolve?.(response);
    return resolve !== undefined;
  }

  /** The instance that asked, by the id of a response. */
  static askedBy(response: RpcResponse): string | undefined {
    return typeof response.id === 'string' ? response.id.split('.', 1)[0] : undefined;
  }

  end(): void {
    this.#listener?.end();
  }
}

function memberOf(response: RpcResponse): AnswerMember {
  const error = textAt(response.text, ['error']);
  return error === undefined ? `"result":${textAt(response.text, ['result']) ?? '{}'}` : `"error":${error}`;
}

/** The client capability that a request of a server needs (lifecycle, capability negotiation). */
export function requiredCapability(method: string): string | undefined {
  return NEEDS.get(method);
}

import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { RPC } from '../../mesh/eras.ts';
import type { MeshError } from '../../mesh/errors.ts';
import { changeObject, memberAt, membersOf, objectText } from '../../mesh/json-text.ts';
import {
  isObject,
  type JsonObject,
  type RpcNotification,
  type RpcRequest,
  textAt,
} from '../../mesh/jsonrpc.ts';
import { RpcError } from '../../mesh/rpc-error.ts';
import { requiredCapability } from '../legacy/client-session.ts';
import { type AnswerMember, errorMember } from '../multiplexer.ts';

/**
 * Calls of modern clients on a legacy server that asks its client for something: the call waits here while the client
 * gathers the answers and comes back with them (2026-07-28, multi round-trip requests).
 */

interface ParkedCall {
  /** To the client of the current round. */
  onNotification: (notification: RpcNotification) => void;
  /** What that client can be asked. */
  capabilities: JsonObject;
  /** Ends the call at the server. */
  abort(): void;
}

interface Question {
  method: string;
  /** As JSON text. */
  params: string;
  answer(member: AnswerMember): void;
}

interface StateClaims {
  /** Instance that holds the call. */
  o: string;
  /** Its place there. */
  k: string;
  /** Expiry, seconds since the epoch. */
  e: number;
}

interface ParkingOptions {
  keys: readonly Buffer[];
  service: string;
  owner(): string;
}

const PARKED_MS = 300_000;
/** Questions that a server asks together are put to the client together. */
const SETTLE_MS = 20;
const PARKED_MAX = 1000;
const CANCELLED: AnswerMember = '"result":{"action":"cancel"}';

export class Parking {
  readonly #options: ParkingOptions;
  /** By place; each is used once. */
  readonly #parked = new Map<
    string,
    { call: Parked; principal: string; digest: string; timer: NodeJS.Timeout }
  >();

  constructor(options: ParkingOptions) {
    this.#options = options;
  }

  /** Puts a call aside until its client comes back, and makes the state that leads to it. */
  park(call: Parked, request: RpcRequest, principal: string): string {
    const oldest = this.#parked.keys().next().value;
    if (this.#parked.size >= PARKED_MAX && oldest !== undefined) this.#expire(oldest);
    const place = randomBytes(12).toString('base64url');
    const timer = setTimeout(() => this.#expire(place), PARKED_MS).unref();
    this.#parked.set(place, { call, principal, digest: digestOf(request), timer });
    const claims: StateClaims = {
      o: this.#options.owner(),
      k: place,
      e: Math.floor((Date.now() + PARKED_MS) / 1000),
    };
    const body = Buffer.from(JSON.stringify(claims)).toString('base64url');
    return `${body}.${this.#mac(body, principal).toString('base64url')}`;
  }

  /** The instance that holds what a state leads to. @throws RpcError -32602 on a state that is not ours */
  ownerOf(state: string, principal: string): string {
    return this.#claims(state, principal).o;
  }

  /** The call that a state leads to, once. @throws RpcError -32602 when it is gone, or was another request */
  resume(state: string, request: RpcRequest, principal: string): Parked {
    const { k: place } = this.#claims(state, principal);
    const found = this.#parked.get(place);
    if (!found || found.principal !== principal || found.digest !== digestOf(request)) throw badState();
    this.#parked.delete(place);
    clearTimeout(found.timer);
    return found.call;
  }

  stop(): void {
    for (const place of [...this.#parked.keys()]) this.#expire(place);
  }

  #expire(place: string): void {
    const found = this.#parked.get(place);
    if (!found) return;
    this.#parked.delete(place);
    clearTimeout(found.timer);
    found.call.giveUp();
  }

  #claims(state: string, principal: string): StateClaims {
    const [body = '', tag = '', rest] = state.split('.');
    const given = Buffer.from(tag, 'base64url');
    const valid = this.#options.keys.some((_key, i) => {
      const mac = this.#mac(body, principal, i);
      return given.length === mac.length && timingSafeEqual(mac, given);
    });
    if (!valid || rest !== undefined) throw badState();
    const claims = JSON.parse(Buffer.from(body, 'base64url').toString()) as StateClaims;
    if (claims.e * 1000 < Date.now()) throw badState();
    return claims;
  }

  #mac(body: string, principal: string, key = 0): Buffer {
    const text = ['state', this.#options.service, principal, body].join('\0');
    return createHmac('sha256', this.#options.keys[key] ?? '')
      .update(text)
      .digest();
  }
}

/** One call with the questions that its server has asked so far. */
export class Parked {
  readonly #call: ParkedCall;
  readonly #questions = new Map<string, Question>();
  #response: { text: string } | { error: MeshError } | undefined;
  /** A capability that the server needed and the client lacks. */
  #missing: string | undefined;
  #asked = 0;
  #wake: () => void = () => {};

  constructor(call: ParkedCall) {
    this.#call = call;
  }

  /** The server's side: its response settles the call, whoever listens then. */
  follow(response: Promise<string>): void {
    response.then(
      text => {
        this.#response = { text };
        this.#wake();
      },
      (error: MeshError) => {
        this.#response = { error };
        this.#wake();
      },
    );
  }

  /** A request of the server's during the call. */
  question(request: RpcRequest, withdrawn: AbortSignal): Promise<AnswerMember> {
    const capability = requiredCapability(request.method);
    if (capability === undefined)
      return Promise.resolve(errorMember(RPC.methodNotFound, `${request.method} is not available`));
    if (!isObject(this.#call.capabilities[capability])) {
      this.#missing = capability;
      return Promise.resolve(errorMember(RPC.invalidRequest, `the client has not declared ${capability}`));
    }
    this.#asked += 1;
    const key = `q${this.#asked}`;
    return new Promise(answer => {
      this.#questions.set(key, { method: request.method, params: paramsOf(request), answer });
      withdrawn.addEventListener('abort', () => this.#questions.delete(key), { once: true });
      setTimeout(() => this.#wake(), SETTLE_MS);
    });
  }

  notification(notification: RpcNotification): void {
    this.#call.onNotification(notification);
  }

  /** The next round's client takes over; its answers go to the server, unknown keys are ignored. */
  continue(current: Pick<ParkedCall, 'onNotification' | 'capabilities'>, retry: RpcRequest): void {
    Object.assign(this.#call, current);
    const text = retry.text.toString();
    const responses = memberAt(text, ['params', 'inputResponses']);
    if (!responses || !isObject(retry.params.inputResponses)) return;
    for (const { key, start, end } of membersOf(text, responses.start)) {
      const question = this.#questions.get(key);
      this.#questions.delete(key);
      question?.answer(`"result":${text.slice(start, end)}`);
    }
  }

  /** Resolves with the response, or with what is still asked. @throws MeshError, RpcError as the call failed */
  async round(): Promise<{ response: string } | { questions: string }> {
    // A question that was withdrawn, or answered, may wake us for nothing.
    while (this.#response === undefined && this.#questions.size === 0) {
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
    if (this.#response === undefined) return { questions: this.#open() };
    if (this.#missing !== undefined && ('error' in this.#response || isFailure(this.#response.text))) {
      throw missingCapability(this.#missing);
    }
    if ('error' in this.#response) throw this.#response.error;
    return { response: this.#response.text };
  }

  /** Nobody came back: the server hears that its client declined. */
  giveUp(): void {
    for (const { method, answer } of this.#questions.values()) {
      answer(
        method === 'elicitation/create'
          ? CANCELLED
          : errorMember(RPC.internal, 'the client did not come back'),
      );
    }
    this.#questions.clear();
    this.#call.abort();
  }

  /** The open questions as JSON text, by key. */
  #open(): string {
    const open = [...this.#questions].map(([key, { method, params }]) => {
      const json = objectText([
        ['method', JSON.stringify(method)],
        ['params', params],
      ]);
      return [key, json] as const;
    });
    return objectText(open);
  }
}

/** What makes a retry the same request: everything but its id, its `_meta` and what it brings back. */
function digestOf({ method, params }: RpcRequest): string {
  const { _meta, inputResponses: _responses, requestState: _state, ...salient } = params;
  return createHash('sha256')
    .update(JSON.stringify([method, salient]))
    .digest('base64url');
}

/** `elicitationId` and `_meta`, with a progress token of the server's own, are of the legacy era. */
function paramsOf(request: RpcRequest): string {
  const params = textAt(request.text, ['params']) ?? '{}';
  return changeObject(params, [], { remove: key => key === 'elicitationId' || key === '_meta' });
}

/** An error, or the result of a tool that failed: after a refused question, that is why. */
function isFailure(text: string): boolean {
  const { error, result } = JSON.parse(text) as { error?: unknown; result?: { isError?: boolean } };
  return error !== undefined || result?.isError === true;
}

function missingCapability(capability: string): RpcError {
  const data = { requiredCapabilities: { [capability]: {} } };
  return new RpcError(400, RPC.missingCapability, `the call needs the client capability ${capability}`, data);
}

function badState(): RpcError {
  return new RpcError(
    200,
    RPC.invalidParams,
    'requestState is not valid here: it is unknown, used, expired or of another request',
  );
}

import type { IncomingMessage } from 'node:http';
import { isObject, type RpcRequest, readChildMessage, rewriteAt } from '../../mesh/jsonrpc.ts';
import { HEADERS } from '../../mesh/names.ts';
import { type Refusal, readPieces, readRefusal } from './answers.ts';
import { Lost, Refused } from './faults.ts';
import type { Link } from './link.ts';

export const ACCEPT = 'application/json, text/event-stream';

interface LegacySessionOptions {
  link: Link;
  tell(text: string): void;
  /** The server has a new session for the client. */
  onRenewed(): void;
}

const UNKNOWN_SESSION = 'unknown_session';
const NOT_FOUND = 404;
/** Subscriptions that are made again in a new session. */
const WISHES_MAX = 1000;
const INITIALIZED = '{"jsonrpc":"2.0","method":"notifications/initialized"}';

/** The client's session at the server (2025-11-25 and before), begun again with the client's own words when it is lost. */
export class LegacySession {
  readonly #options: LegacySessionOptions;
  #greeting: RpcRequest | undefined;
  #id: string | undefined;
  #version: string | undefined;
  #generation = 0;
  #isInitialized = false;
  /** What the client asked for that a server keeps in the session: requests by what they are about. */
  readonly #wishes = new Map<string, RpcRequest>();
  #renewal: Promise<void> | undefined;
  #ownRequests = 0;

  constructor(options: LegacySessionOptions) {
    this.#options = options;
  }

  get id(): string | undefined {
    return this.#id;
  }

  /** Counts the sessions that the server has had for this client. */
  get generation(): number {
    return this.#generation;
  }

  get isInitialized(): boolean {
    return this.#isInitialized;
  }

  headers(): Record<string, string> {
    return {
      ...(this.#id === undefined ? {} : { [HEADERS.session]: this.#id }),
      ...(this.#version === undefined ? {} : { [HEADERS.protocolVersion]: this.#version }),
    };
  }

  /** Resolves when no new session is on its way, for better or worse. */
  async settled(): Promise<void> {
    await this.#renewal?.catch(() => {});
  }

  /** The client begins (again): nothing of an earlier session holds. */
  greet(request: RpcRequest): void {
    this.#greeting = request;
    this.#id = undefined;
    this.#version = undefined;
    this.#isInitialized = false;
    this.#wishes.clear();
  }

  begin(answer: IncomingMessage): void {
    const id = answer.headers[HEADERS.session];
    this.#id = typeof id === 'string' && id !== '' ? id : undefined;
    this.#generation += 1;
  }

  /** The client's request was answered with this result. */
  learn(request: RpcRequest, result: unknown): void {
    const { method, params } = request;
    if (method === 'initialize' && isObject(result) && typeof result.protocolVersion === 'string')
      this.#version = result.protocolVersion;
    const key = method.startsWith('resources/') ? `uri ${String(params.uri)}` : method;
    if (method === 'resources/unsubscribe') this.#wishes.delete(key);
    if (method !== 'logging/setLevel' && method !== 'resources/subscribe') return;
    if (this.#wishes.size < WISHES_MAX) this.#wishes.set(key, request);
  }

  initialized(): void {
    this.#isInitialized = true;
  }

  /** Whether the server says that it does not know the session. */
  isLost({ status, code }: Refusal): boolean {
    return status === NOT_FOUND && this.#id !== undefined && (code ?? UNKNOWN_SESSION) === UNKNOWN_SESSION;
  }

  /**
   * Begins again, for everybody that the loss of session number `lost` has hit.
   * @throws Unreachable, Refused, Lost
   */
  renew(lost: number): Promise<void> {
    if (lost !== this.#generation) return Promise.resolve();
    this.#renewal ??= this.#renew().finally(() => {
      this.#renewal = undefined;
    });
    return this.#renewal;
  }

  async #renew(): Promise<void> {
    const greeting = this.#greeting;
    if (!greeting) throw new Lost('the session is lost, and the client has never said initialize');
    const { link, tell, onRenewed } = this.#options;
    const version = this.#version;
    const result = await this.#ask(greeting, {}, answer => this.begin(answer));
    this.learn(greeting, result);
    if (version !== this.#version) tell(`the new session speaks ${this.#version}, the old one ${version}`);
    if (this.#isInitialized) {
      const answer = await link.send({ body: INITIALIZED, headers: { accept: ACCEPT, ...this.headers() } });
      answer.resume();
    }
    for (const wish of this.#wishes.values()) await this.#ask(wish, this.headers());
    tell('the mesh had lost the session: it was begun again');
    onRenewed();
  }

  /** Sends a request of the client's under an id of our own; its result. */
  async #ask(
    request: RpcRequest,
    headers: Record<string, string>,
    onAnswer?: (answer: IncomingMessage) => void,
  ): Promise<unknown> {
    this.#ownRequests += 1;
    const id = `mesh-connect-${this.#ownRequests}`;
    const body = rewriteAt(request.text.toString(), ['id'], JSON.stringify(id));
    const answer = await this.#options.link.send({ body, headers: { accept: ACCEPT, ...headers } });
    if ((answer.statusCode ?? 0) >= 300) throw new Refused(await readRefusal(answer));
    onAnswer?.(answer);
    for await (const { text } of readPieces(answer)) {
      const message = text === undefined ? undefined : readChildMessage(text);
      if (message?.kind !== 'response' || message.id !== id) continue;
      if (message.value.error === undefined) return message.value.result;
      throw new Lost(`${request.method} was answered with an error in the new session`);
    }
    throw new Lost(`${request.method} was not answered in the new session`);
  }
}

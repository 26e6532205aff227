import { MeshError, toMeshError } from '../../mesh/errors.ts';
import { changeObject } from '../../mesh/json-text.ts';
import {
  errorText,
  type RpcMessage,
  type RpcNotification,
  type RpcResponse,
  readBody,
  readChildMessage,
} from '../../mesh/jsonrpc.ts';
import { Call, type CallParts } from './call.ts';
import { describeFault, waitAfter } from './faults.ts';
import { ACCEPT, LegacySession } from './legacy-session.ts';
import { createLink, type Endpoint, type Link } from './link.ts';
import { isModern, modernHeaders } from './modern-headers.ts';
import { Backoff, pause } from './patience.ts';
import { isRepeatable } from './repeatable.ts';
import { StandingStream } from './standing-stream.ts';
import { ToolNotes } from './tool-notes.ts';

interface BridgeOptions {
  endpoint: Endpoint;
  /** Hands one line, without its end, to the client; resolves when there is room for more. */
  write(line: string): Promise<void> | void;
  /** For people. */
  tell(text: string): void;
  /** How long a message waits for a gateway that is away, in ms. */
  waitMs?: number;
}

const WAIT_MS = 30_000;
const CALLS_MAX = 1000;
/** Characters of the requests that are under way. */
const HELD_MAX = 128 * 1024 * 1024;
const BATCH_MAX = 100;
/** Questions of the server's that the client has not answered. */
const ASKED_MAX = 1000;
const GOODBYE_MS = 1000;
const LISTEN = 'subscriptions/listen';
const ACKNOWLEDGED = 'notifications/subscriptions/acknowledged';

/**
 * A stdio client on an endpoint of Streamable HTTP, in both eras. Messages pass as they were written; what belongs to
 * HTTP alone (sessions, streams, connections that break) stays on this side.
 */
export class Bridge {
  readonly #options: BridgeOptions;
  readonly #link: Link;
  readonly #session: LegacySession;
  readonly #standing: StandingStream;
  readonly #tools = new ToolNotes();
  readonly #calls = new Set<Call>();
  readonly #parts: CallParts;
  readonly #closing = new AbortController();
  /** Session numbers of the server's questions, by their ids. */
  readonly #asked = new Map<unknown, number>();
  /** What has to be done before legacy messages may follow: the handshake. */
  #gate = Promise.resolve();
  #held = 0;

  constructor(options: BridgeOptions) {
    const { endpoint, tell } = options;
    this.#options = options;
    this.#link = createLink(endpoint);
    this.#session = new LegacySession({ link: this.#link, tell, onRenewed: () => this.#standing.start() });
    this.#standing = new StandingStream({
      link: this.#link,
      session: this.#session,
      onMessage: async (text, generation) => {
        await this.#pass(text, undefined, generation);
      },
    });
    this.#parts = {
      link: this.#link,
      session: this.#session,
      tools: this.#tools,
      onMessage: (text, call, generation) => this.#pass(text, call, generation),
    };
  }

  /** A line that the client wrote. */
  receive(line: string): void {
    try {
      const body = readBody(line, BATCH_MAX);
      for (const message of Array.isArray(body) ? body : [body]) this.#route(message);
    } catch (fault) {
      void this.#options.write(errorText('null', toMeshError(fault)));
    }
  }

  /** Ends the session, after the calls under way or `graceMs`, whichever comes first. */
  async close(graceMs: number): Promise<void> {
    const deadline = performance.now() + graceMs;
    while (this.#calls.size > 0 && performance.now() < deadline) await pause(10, this.#closing.signal);
    this.#closing.abort();
    this.#standing.stop();
    for (const call of this.#calls) call.abort.abort();
    if (this.#session.id !== undefined) {
      const signal = AbortSignal.timeout(GOODBYE_MS);
      const ended = this.#link.send({ method: 'DELETE', headers: this.#session.headers(), signal });
      await ended.then(answer => answer.resume()).catch(() => {});
    }
    this.#link.close();
  }

  #route(message: RpcMessage): void {
    if (message.kind === 'request') {
      const call = new Call(message);
      const done = this.#carry(call);
      if (call.isModern || message.method !== 'initialize') return;
      this.#session.greet(message);
      this.#gate = done;
    } else if (message.kind === 'response') this.#answer(message);
    else if (message.method === 'notifications/cancelled') this.#cancel(message);
    else this.#notify(message);
  }

  async #carry(call: Call): Promise<void> {
    const { request } = call;
    const { length } = request.text;
    if (this.#calls.size >= CALLS_MAX || this.#held + length > HELD_MAX) {
      const detail = `${this.#calls.size} requests are under way already`;
      await this.#options.write(
        errorText(request.idText, new MeshError('too_many_in_flight', { detail, retryAfterMs: 1000 })),
      );
      return;
    }
    this.#calls.add(call);
    this.#held += length;
    try {
      if (!call.isModern && request.method !== 'initialize') await this.#gate;
      await this.#persist(call);
    } catch (fault) {
      const isWanted = !call.isCancelled && !call.isAnswered && !this.#closing.signal.aborted;
      if (isWanted) await this.#options.write(describeFault(fault, request.idText, errorText));
    } finally {
      this.#calls.delete(call);
      this.#held -= length;
    }
  }

  /** Tries until there is an answer, or no further try is allowed. @throws Unreachable, Refused, Lost */
  async #persist(call: Call): Promise<void> {
    const backoff = new Backoff();
    let deadline = performance.now() + (this.#options.waitMs ?? WAIT_MS);
    for (;;) {
      if (call.signal.aborted) return;
      try {
        if (await call.attempt(this.#parts)) return;
      } catch (fault) {
        if (call.signal.aborted) return;
        const isListening = call.request.method === LISTEN && call.hasBegun;
        // A subscription stands for as long as the client wants it: each loss has its own time.
        if (isListening) deadline = performance.now() + (this.#options.waitMs ?? WAIT_MS);
        const again = isListening || (!call.hasBegun && isRepeatable(call.request, this.#tools));
        const wait = waitAfter(fault, again);
        if (wait === undefined || performance.now() + wait > deadline) throw fault;
        await pause(Math.max(wait, backoff.next()), call.signal);
      }
    }
  }

  #cancel(notification: RpcNotification): void {
    const { requestId } = notification.params;
    const call = [...this.#calls].find(({ request }) => request.value.id === requestId);
    if (!call) return;
    call.isCancelled = true;
    // In the modern era, to go away is to cancel; what was never sent needs no word in either.
    if (call.isModern || !call.isSent) call.abort.abort();
    else this.#notify(notification);
  }

  #notify(notification: RpcNotification): void {
    const modern = isModern(notification);
    const headers = () => (modern ? modernHeaders(notification, this.#tools) : this.#session.headers());
    const before = modern ? Promise.resolve() : this.#gate;
    const posted = before.then(() => this.#post(notification.text, headers, notification.method));
    if (modern || notification.method !== 'notifications/initialized') return;
    this.#gate = posted.then(() => {
      this.#session.initialized();
      this.#standing.start();
    });
  }

  /** The client's answer to a question of the server's; one of a lost session has nobody to hear it. */
  #answer(response: RpcResponse): void {
    const generation = this.#asked.get(response.id);
    this.#asked.delete(response.id);
    if (generation === undefined || generation !== this.#session.generation) return;
    void this.#post(response.text.toString(), () => this.#session.headers(), 'an answer');
  }

  /** Sends what has no answer; waits for a gateway that is away as calls do. */
  async #post(body: string, headers: () => Record<string, string>, what: string): Promise<void> {
    const backoff = new Backoff();
    const deadline = performance.now() + (this.#options.waitMs ?? WAIT_MS);
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        const answer = await this.#link.send({ body, headers: { accept: ACCEPT, ...headers() }, signal });
        answer.resume();
        return;
      } catch (fault) {
        const wait = waitAfter(fault, false);
        if (wait === undefined || performance.now() > deadline) {
          if (!signal.aborted) this.#options.tell(`${what} was not sent: ${(fault as Error).message}`);
          return;
        }
        await pause(backoff.next(), signal);
      }
    }
  }

  /** Hands a message of the server's to the client. */
  async #pass(source: string, call: Call | undefined, generation: number): Promise<RpcResponse | undefined> {
    const message = this.#read(source);
    if (!message) return undefined;
    if (message.kind === 'response') return call && this.#respond(message, call);
    if (message.kind === 'request') {
      if (this.#asked.size >= ASKED_MAX) this.#asked.delete(this.#asked.keys().next().value);
      this.#asked.set(message.value.id, generation);
    }
    const isRepeated = call?.hasBegun === true && message.method === ACKNOWLEDGED;
    if (call) call.hasBegun = true;
    if (!isRepeated && call?.isCancelled !== true) await this.#options.write(message.text.toString());
    return undefined;
  }

  async #respond(message: RpcResponse, call: Call): Promise<RpcResponse | undefined> {
    const { request } = call;
    const isRefusal = message.id === null && message.value.error !== undefined;
    if (message.id !== request.value.id && !isRefusal) return undefined;
    const { result } = message.value;
    if (result !== undefined) this.#session.learn(request, result);
    if (request.method === 'tools/list') this.#tools.learn(result);
    const text = isRefusal
      ? changeObject(message.text.toString(), [], { set: { id: request.idText } })
      : message.text.toString();
    call.isAnswered = true;
    if (!call.isCancelled) await this.#options.write(text);
    return message;
  }

  #read(source: string): RpcMessage | undefined {
    try {
      return readChildMessage(source);
    } catch (error) {
      this.#options.tell(`something that is no message was left out: ${(error as Error).message}`);
      return undefined;
    }
  }
}

import type { IncomingMessage } from 'node:http';
import type { RpcRequest, RpcResponse } from '../../mesh/jsonrpc.ts';
import { readPieces, readRefusal } from './answers.ts';
import { Lost, Refused } from './faults.ts';
import { ACCEPT, type LegacySession } from './legacy-session.ts';
import type { Link } from './link.ts';
import { isModern, modernHeaders } from './modern-headers.ts';
import { Backoff, pause } from './patience.ts';
import type { ToolNotes } from './tool-notes.ts';

/** What a call needs of the bridge that it goes over. */
export interface CallParts {
  link: Link;
  session: LegacySession;
  tools: ToolNotes;
  /** Hands a message on to the client; gives the response when it is the one to this request. */
  onMessage(text: string, call: Call, generation: number): Promise<RpcResponse | undefined>;
}

/** A new session that is unknown again at once is no session. */
const RENEWALS_MAX = 3;
/** What ends a stream follows its response at once; a server that forgets to is not waited for. */
const TAIL_MS = 1000;
/** From this status on, an answer is none: redirects are not followed. */
const REFUSALS = 300;
const RESUME_MS = 30_000;

/** A request of the client's on its way: one exchange over HTTP, and its continuation where the stream can be resumed. */
export class Call {
  readonly request: RpcRequest;
  readonly isModern: boolean;
  readonly abort = new AbortController();
  /** Something of it has been sent. */
  isSent = false;
  /** The client wants no answer any more. */
  isCancelled = false;
  /** The client has got something of it already. */
  hasBegun = false;
  /** The client has its response. */
  isAnswered = false;
  #renewals = 0;

  constructor(request: RpcRequest) {
    this.request = request;
    this.isModern = isModern(request);
  }

  get signal(): AbortSignal {
    return this.abort.signal;
  }

  /**
   * Sends the request and hands on what comes.
   * @returns false when it is to be sent again at once, in a new session
   * @throws Unreachable, Refused, Lost
   */
  async attempt(parts: CallParts): Promise<boolean> {
    const { link, session, tools } = parts;
    if (!this.isModern) await session.settled();
    const { generation } = session;
    const own = this.isModern ? modernHeaders(this.request, tools) : session.headers();
    this.isSent = true;
    const answer = await link.send({
      body: this.request.text.toString(),
      headers: { accept: ACCEPT, ...own },
      signal: this.signal,
    });
    if ((answer.statusCode ?? 0) < REFUSALS) {
      const isGreeting = !this.isModern && this.request.method === 'initialize';
      if (isGreeting) session.begin(answer);
      await this.#take(answer, isGreeting ? session.generation : generation, parts);
      return true;
    }
    const refusal = await readRefusal(answer);
    const isLost = !this.isModern && session.isLost(refusal) && this.#renewals < RENEWALS_MAX;
    if (!isLost) throw new Refused(refusal);
    this.#renewals += 1;
    await session.renew(generation);
    return false;
  }

  async #take(first: IncomingMessage, generation: number, parts: CallParts): Promise<void> {
    let answer = first;
    let last: string | undefined;
    for (;;) {
      let fault: Error | undefined;
      try {
        for await (const { text, eventId } of readPieces(answer)) {
          last = eventId ?? last;
          if (text === undefined) continue;
          this.isAnswered ||= (await parts.onMessage(text, this, generation)) !== undefined;
          if (this.isAnswered) setTimeout(() => this.abort.abort(), TAIL_MS).unref();
        }
      } catch (error) {
        fault = error as Error;
      }
      if (this.isAnswered || this.isCancelled || this.signal.aborted) return;
      if (this.isModern || last === undefined) {
        const why = fault ? `: ${fault.message}` : '';
        throw new Lost(`the connection was lost before the answer${why}`, { cause: fault });
      }
      answer = await this.#resume(last, parts);
    }
  }

  /** The rest of a stream that broke (2025-11-25, resumability). */
  async #resume(last: string, { link, session }: CallParts): Promise<IncomingMessage> {
    const headers = { accept: 'text/event-stream', ...session.headers(), 'last-event-id': last };
    const backoff = new Backoff();
    const deadline = performance.now() + RESUME_MS;
    for (;;) {
      try {
        const answer = await link.send({ method: 'GET', headers, signal: this.signal });
        if ((answer.statusCode ?? 0) < REFUSALS) return answer;
        throw new Refused(await readRefusal(answer));
      } catch (fault) {
        const isOver = performance.now() > deadline || isSettled(fault);
        if (!isOver && (await pause(backoff.next(), this.signal))) continue;
        throw new Lost(`the connection was lost before the answer: ${(fault as Error).message}`, {
          cause: fault,
        });
      }
    }
  }
}

/** A server that says no to the rest of a stream does not have it. */
function isSettled(fault: unknown): boolean {
  return fault instanceof Refused && fault.refusal.status < 500;
}

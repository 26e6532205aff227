import { ClientSession } from './client-session.ts';
import type { SessionClaims } from './session-token.ts';

/** A session with no state here is made anew from its token, so forgetting an idle one costs nothing. */
const IDLE_MS = 300_000;
const SWEEP_MS = 30_000;
const ENDED_MAX = 100_000;
const ACTIVE_MAX = 20_000;

/** The legacy sessions that this worker has to do with just now, and those that it was told to end. */
export class SessionStore {
  readonly #active = new Map<string, ClientSession>();
  /** Ended by DELETE: their tokens are still signed. Oldest first. */
  readonly #ended = new Set<string>();
  readonly #owner: () => string;
  readonly #sweeper: NodeJS.Timeout;

  constructor(owner: () => string) {
    this.#owner = owner;
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS).unref();
  }

  /** Sessions that it knows now. */
  get size(): number {
    return this.#active.size;
  }

  /** Standing streams of theirs. */
  get streams(): number {
    return this.#active.values().reduce((sum, { listening }) => sum + Number(listening), 0);
  }

  /** undefined when the session was ended. */
  of(claims: SessionClaims): ClientSession | undefined {
    if (this.#ended.has(claims.id)) return undefined;
    const known = this.#active.get(claims.id);
    const session = known ?? new ClientSession(claims, this.#owner());
    session.lastUsed = Date.now();
    if (!known) this.#add(session);
    return session;
  }

  /** One that holds nothing makes room; it was never more than a copy of its token. */
  #add(session: ClientSession): void {
    if (this.#active.size >= ACTIVE_MAX) {
      const spare = this.#active.values().find(({ disposable }) => disposable);
      if (spare) this.#active.delete(spare.claims.id);
    }
    this.#active.set(session.claims.id, session);
  }

  end(session: ClientSession): void {
    session.end();
    this.#active.delete(session.claims.id);
    this.#ended.add(session.claims.id);
    const [oldest] = this.#ended;
    if (this.#ended.size > ENDED_MAX && oldest !== undefined) this.#ended.delete(oldest);
  }

  stop(): void {
    clearInterval(this.#sweeper);
    for (const session of this.#active.values()) session.end();
  }

  #sweep(): void {
    const oldest = Date.now() - IDLE_MS;
    for (const [id, session] of this.#active) {
      if (session.disposable && session.lastUsed < oldest) this.#active.delete(id);
    }
  }
}

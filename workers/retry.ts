import { setTimeout as delay } from 'node:timers/promises';
import type { Era } from '../mesh/eras.ts';
import { type Delivered, type ErrorCode, MeshError, toMeshError } from '../mesh/errors.ts';
import { isObject, type RpcRequest } from '../mesh/jsonrpc.ts';
import type { Service } from '../mesh/registry.ts';
import { type CancelSignal, toAbortSignal } from './canceller.ts';
import type { ServerInfo } from './connection.ts';
import type { ServerState } from './stdio-server.ts';

type RetryPolicy = Service['retry'];

/** What must be known of a server to send it a call again. */
export interface Revivable {
  /** Only of a server that is started again when it ends; a session's or a call's own is gone with its process. */
  readonly state?: ServerState;
  /** What it last said of itself: the request was written for its era. */
  readonly info: ServerInfo | undefined;
}

interface RetriedCall {
  server: Revivable;
  /** Whether it may run twice; looked up before the first try, since a dead server can no longer be asked. */
  safe: boolean;
  /** When it ends at the latest, by performance.now(). */
  deadline: number;
  signal?: CancelSignal | undefined;
  /** Whether the client has got something of it already: a second run would say that again. */
  begun(): boolean;
}

interface RetriesOptions {
  policy: RetryPolicy;
  /** Calls that may wait for their next try at one server: a server that stays away must not gather them without end. */
  room: number;
  onRetry(reason: ErrorCode): void;
}

/**
 * MCP gives effects to tools alone: lists, reads, prompts and completions fetch what the server has, so a repeat
 * changes nothing (2026-07-28 and 2025-11-25, server features).
 */
const READS = new Set([
  'server/discover',
  'ping',
  'tools/list',
  'prompts/list',
  'prompts/get',
  'resources/list',
  'resources/templates/list',
  'resources/read',
  'completion/complete',
]);
/** Not timeouts: a server too slow for one call would get three. */
const INTERRUPTED = new Set<ErrorCode>(['child_crashed', 'protocol_error']);
const BY_CERTAINTY: readonly Delivered[] = ['no', 'unknown', 'yes'];

/** Tries calls again, where that is safe and their server can come back. */
export class Retries {
  readonly #options: RetriesOptions;
  readonly #waitingAt = new WeakMap<Revivable, number>();
  #waiting = 0;

  constructor(options: RetriesOptions) {
    this.#options = options;
  }

  /** Calls that wait for their next try. */
  get waiting(): number {
    return this.#waiting;
  }

  /**
   * Runs the tries of one call, numbered from 1, until one succeeds or no further one is allowed.
   * @throws MeshError of the last try; its `delivered` speaks for all of them. `cancelled` when that ends the waiting
   */
  run<T>(call: RetriedCall, attempt: (number: number) => Promise<T>): Promise<T> {
    const era = call.server.info?.era;
    return attempt(1).catch(fault => this.#runAgain(call, attempt, { fault, era }));
  }

  /** The tries after the first, which failed. */
  async #runAgain<T>(
    call: RetriedCall,
    attempt: (number: number) => Promise<T>,
    { fault, era }: { fault: unknown; era: Era | undefined },
  ): Promise<T> {
    const { policy, onRetry } = this.#options;
    let error = toMeshError(fault);
    let { delivered } = error;
    for (let number = 1; ; number += 1) {
      const allowed = number < policy.attempts && era !== undefined && mayRepeat(error, call);
      const again = allowed && (await this.#wait(call, error, number));
      if (allowed && call.signal?.aborted) throw cancelled(delivered);
      // Started again, a server that speaks both eras may have been greeted in the other one.
      if (!again || call.server.info?.era !== era) throw withDelivered(error, delivered);
      onRetry(error.code);
      try {
        return await attempt(number + 1);
      } catch (next) {
        error = toMeshError(next);
        delivered = worse(delivered, error.delivered);
      }
    }
  }

  /** False when there is no room to wait, or no time. */
  async #wait(call: RetriedCall, error: MeshError, number: number): Promise<boolean> {
    const { server } = call;
    const here = this.#waitingAt.get(server) ?? 0;
    if (here >= this.#options.room) return false;
    this.#waitingAt.set(server, here + 1);
    this.#waiting += 1;
    try {
      return await this.#untilWorthwhile(call, error.retryAfterMs ?? 0, number);
    } finally {
      this.#waitingAt.set(server, (this.#waitingAt.get(server) ?? 1) - 1);
      this.#waiting -= 1;
    }
  }

  /**
   * A server that is not up yet is looked at now and then for up to `max_ms`: a look costs no try, nor does it reach
   * the breaker, to which a refused call is none of the server's failures.
   */
  async #untilWorthwhile(
    { server, deadline, signal }: RetriedCall,
    leastMs: number,
    number: number,
  ): Promise<boolean> {
    const { policy } = this.#options;
    const lookUntil = performance.now() + policy.max_ms;
    let ms = Math.max(leastMs, backoffMs(policy, number));
    for (;;) {
      if (server.state === 'stopped' || performance.now() + ms >= deadline) return false;
      // A worker that has stopped need not live on for it.
      await delay(ms, undefined, { ref: false, ...(signal ? { signal: toAbortSignal(signal) } : {}) }).catch(
        () => {},
      );
      const now = performance.now();
      if (signal?.aborted || now >= deadline) return false;
      if (server.state === 'ready' || now >= lookUntil) return true;
      ms = Math.min(backoffMs(policy, number + 1), lookUntil - now);
    }
  }
}

/**
 * Whether a request may reach the server twice: by what its method is, or by what the tool's own annotations say.
 * One that brings answers back is not: its state may be good for one use (2026-07-28, multi round-trip requests).
 */
export function isSafe({ method, params }: RpcRequest, isRepeatable: (tool: string) => boolean): boolean {
  if (params.requestState !== undefined || params.inputResponses !== undefined) return false;
  if (method !== 'tools/call') return READS.has(method);
  return typeof params.name === 'string' && isRepeatable(params.name);
}

/**
 * Whether a tool declares that a repeated call has no further effect. Absent hints mean that it has (MCP
 * ToolAnnotations).
 */
export function saysRepeatable(tool: Readonly<Record<string, unknown>>): boolean {
  const { annotations } = tool;
  return isObject(annotations) && (annotations.readOnlyHint === true || annotations.idempotentHint === true);
}

/**
 * Time before the try after `number` tries, in ms: "full jitter" of the AWS Architecture Blog's "Exponential Backoff
 * And Jitter", so that calls which failed together do not come back together.
 */
export function backoffMs({ base_ms, max_ms }: RetryPolicy, number: number): number {
  return Math.random() * Math.min(max_ms, base_ms * 2 ** (number - 1));
}

function mayRepeat(error: MeshError, { server, safe, begun }: RetriedCall): boolean {
  if (server.state === undefined || begun()) return false;
  if (error.delivered === 'no') return error.code === 'child_unavailable';
  return safe && error.delivered === 'unknown' && INTERRUPTED.has(error.code);
}

function worse(one: Delivered, other: Delivered): Delivered {
  return BY_CERTAINTY.indexOf(one) > BY_CERTAINTY.indexOf(other) ? one : other;
}

function cancelled(delivered: Delivered): MeshError {
  return new MeshError('cancelled', { detail: 'the client cancelled the request', delivered });
}

/** The last try's error, which alone may say `no` when an earlier one may have reached the server. */
function withDelivered(error: MeshError, delivered: Delivered): MeshError {
  if (error.delivered === delivered) return error;
  const { code, message: detail, retryAfterMs } = error;
  const options = { detail, delivered, cause: error };
  return new MeshError(code, retryAfterMs === undefined ? options : { ...options, retryAfterMs });
}

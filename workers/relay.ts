import { toMeshError } from '../mesh/errors.ts';
import type { RpcRequest } from '../mesh/jsonrpc.ts';
import type { Service } from '../mesh/registry.ts';
import type { WireText } from '../mesh/wire-text.ts';
import { type Admission, createAdmission, type EnterOptions } from './admission.ts';
import type { CallTrace, TracedServer } from './call-trace.ts';
import type { LoadMeter } from './load.ts';
import type { WorkerMetrics } from './metrics.ts';
import type { CallOptions } from './multiplexer.ts';
import { isSafe, Retries, type Revivable } from './retry.ts';

export interface RelayOptions extends Omit<CallOptions, 'timeoutMs'> {
  /** Whose call it is, for fair shares of the queue. */
  principal: string;
  /** Follows the call. */
  trace?: CallTrace;
  /** Longest time the caller wants to wait; the registry's own bound still holds. */
  timeoutMs?: number;
}

/** A server to call: the shared one, or one of a session's or a call's own. */
export interface Upstream extends Revivable, TracedServer {
  readonly info: Revivable['info'];
  call(request: RpcRequest, options: CallOptions): Promise<WireText>;
}

interface Attempt extends Required<Pick<CallOptions, 'onNotification' | 'impatient'>> {
  /** By the clock of `performance.now()`. */
  deadline: number;
}

interface RelayParts {
  service: Service;
  metrics: WorkerMetrics;
  load: LoadMeter;
  /** Whether a tool of the server is known to do no harm when it is called again; without it, none is. */
  isRepeatable?: (upstream: Upstream, tool: string) => boolean;
}

/**
 * The way of every call, whichever route it came by: a place in the server, a second try where that is safe, one bound
 * in time for all of it, measured.
 */
export class Relay {
  readonly #parts: RelayParts;
  readonly #admissions = new WeakMap<Upstream, Admission>();
  readonly #retries: Retries;
  #queued = 0;

  constructor(parts: RelayParts) {
    this.#parts = parts;
    const { retry: policy, concurrency, queue } = parts.service;
    this.#retries = new Retries({
      policy,
      room: concurrency + queue,
      onRetry: reason => parts.metrics.retried(reason),
    });
  }

  /** Calls that wait for a place in their server, or for their next try. */
  get queued(): number {
    return this.#queued + this.#retries.waiting;
  }

  /** Carries one request to a server and resolves with the text of its response. @throws MeshError */
  async call(upstream: Upstream, request: RpcRequest, options: RelayOptions): Promise<WireText> {
    const { service, metrics, isRepeatable } = this.#parts;
    const { timeoutMs } = options;
    const bound = timeoutFor(service, request);
    const impatient = timeoutMs !== undefined && timeoutMs < bound;
    const started = performance.now();
    const deadline = started + (impatient ? timeoutMs : bound);
    const { onNotification, begun } = watched(options);
    const call = {
      server: upstream,
      safe: service.retry.attempts > 1 && isSafe(request, tool => isRepeatable?.(upstream, tool) ?? false),
      deadline,
      signal: options.signal,
      begun,
    };
    let outcome = 'ok';
    try {
      return await this.#retries.run(call, number => {
        // What is left of the time for a second try says nothing of the server when it runs out.
        const attempt = { onNotification, impatient: impatient || number > 1, deadline };
        return this.#attempt(upstream, request, options, attempt);
      });
    } catch (fault) {
      const error = toMeshError(fault);
      outcome = error.code;
      throw error;
    } finally {
      metrics.observe(request.method, outcome, (performance.now() - started) / 1000);
    }
  }

  /** Once, in a place of its own. @throws MeshError */
  async #attempt(
    upstream: Upstream,
    request: RpcRequest,
    options: RelayOptions,
    { onNotification, impatient, deadline }: Attempt,
  ): Promise<WireText> {
    const { principal, trace, signal } = options;
    const left = () => Math.max(1, Math.round(deadline - performance.now()));
    trace?.waits();
    const admission = this.#admissionTo(upstream);
    let leave = admission.enterNow(principal);
    if (leave) this.#parts.metrics.waited(0);
    else leave = await this.#wait(admission, principal, { timeoutMs: left(), signal });
    const entered = performance.now();
    try {
      const sent = trace?.enters(request, upstream) ?? request;
      const text = await upstream.call(sent, { ...options, onNotification, impatient, timeoutMs: left() });
      trace?.leaves({ text });
      this.#parts.load.observe(performance.now() - entered);
      return text;
    } catch (fault) {
      trace?.leaves({ code: toMeshError(fault).code });
      throw fault;
    } finally {
      this.#parts.metrics.executed((performance.now() - entered) / 1000);
      leave();
    }
  }

  async #wait(admission: Admission, principal: string, options: EnterOptions): Promise<() => void> {
    this.#queued += 1;
    const asked = performance.now();
    let refused = false;
    try {
      return await admission.enter(principal, options);
    } catch (fault) {
      // Whom a full queue turns away at once does not make the others' waiting shorter.
      refused = toMeshError(fault).code === 'queue_full';
      throw fault;
    } finally {
      this.#queued -= 1;
      if (!refused) this.#parts.metrics.waited((performance.now() - asked) / 1000);
    }
  }

  #admissionTo(upstream: Upstream): Admission {
    const known = this.#admissions.get(upstream);
    if (known) return known;
    const { service, load } = this.#parts;
    const { concurrency, queue } = service;
    const admission = createAdmission({ concurrency, queue, latencyMs: () => load.report().latencyMs });
    this.#admissions.set(upstream, admission);
    return admission;
  }
}

function timeoutFor(service: Service, request: RpcRequest): number {
  const { name } = request.params;
  const known =
    request.method === 'tools/call' && typeof name === 'string' && Object.hasOwn(service.tool_timeouts, name);
  return (known ? service.tool_timeouts[name] : undefined) ?? service.timeout_ms;
}

/**
 * Notices when the client gets something of a call before its answer. A call that asks for logs counts as begun from
 * the start: only one of those may be in the server at a time, and who waits for a second try does not see the others.
 */
function watched({ onNotification, wantsLogs }: RelayOptions): {
  onNotification: RelayOptions['onNotification'];
  begun(): boolean;
} {
  let begun = wantsLogs === true;
  if (!onNotification) return { onNotification, begun: () => begun };
  return {
    onNotification(notification) {
      begun = true;
      onNotification(notification);
    },
    begun: () => begun,
  };
}

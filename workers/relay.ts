import { toMeshError } from '../mesh/errors.ts';
import type { RpcRequest } from '../mesh/jsonrpc.ts';
import type { Service } from '../mesh/registry.ts';
import { type Admission, createAdmission } from './admission.ts';
import type { LoadMeter } from './load.ts';
import type { WorkerMetrics } from './metrics.ts';
import type { CallOptions } from './multiplexer.ts';

export interface RelayOptions extends Omit<CallOptions, 'timeoutMs'> {
  /** Whose call it is, for fair shares of the queue. */
  principal: string;
  /** Longest time the caller wants to wait; the registry's own bound still holds. */
  timeoutMs?: number;
}

/** A server to call: the shared one, or one of a session's or a call's own. */
export interface Upstream {
  call(request: RpcRequest, options: CallOptions): Promise<string>;
}

interface RelayParts {
  service: Service;
  metrics: WorkerMetrics;
  load: LoadMeter;
}

/** The way of every call, whichever route it came by: a place in the server, one bound in time for all of it, measured. */
export class Relay {
  readonly #parts: RelayParts;
  readonly #admissions = new WeakMap<Upstream, Admission>();
  #queued = 0;

  constructor(parts: RelayParts) {
    this.#parts = parts;
  }

  /** Calls that wait for a place in their server. */
  get queued(): number {
    return this.#queued;
  }

  /** Carries one request to a server and resolves with the text of its response. @throws MeshError */
  async call(upstream: Upstream, request: RpcRequest, options: RelayOptions): Promise<string> {
    const { service, metrics, load } = this.#parts;
    const { timeoutMs, principal, ...rest } = options;
    const bound = timeoutFor(service, request);
    const impatient = timeoutMs !== undefined && timeoutMs < bound;
    const total = impatient ? timeoutMs : bound;
    const started = performance.now();
    let leave = () => {};
    let outcome = 'ok';
    try {
      leave = await this.#enter(upstream, principal, total, rest.signal);
      const entered = performance.now();
      const left = Math.max(1, Math.round(total - (entered - started)));
      const text = await upstream.call(request, { ...rest, impatient, timeoutMs: left });
      load.observe(performance.now() - entered);
      return text;
    } catch (fault) {
      const error = toMeshError(fault);
      outcome = error.code;
      throw error;
    } finally {
      leave();
      metrics.observe(request.method, outcome, (performance.now() - started) / 1000);
    }
  }

  async #enter(
    upstream: Upstream,
    principal: string,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<() => void> {
    this.#queued += 1;
    try {
      return await this.#admissionTo(upstream).enter(principal, { timeoutMs, signal });
    } finally {
      this.#queued -= 1;
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

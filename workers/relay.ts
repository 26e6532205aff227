import { toMeshError } from '../mesh/errors.ts';
import type { RpcRequest } from '../mesh/jsonrpc.ts';
import type { Service } from '../mesh/registry.ts';
import type { LoadMeter } from './load.ts';
import type { WorkerMetrics } from './metrics.ts';
import type { CallOptions } from './multiplexer.ts';

export interface RelayOptions extends Omit<CallOptions, 'timeoutMs'> {
  /** Longest time the caller wants to wait; the registry's own bound still holds. */
  timeoutMs?: number;
}

/** A server to call: the shared one, or one of a session's or a call's own. */
export interface Upstream {
  call(request: RpcRequest, options: CallOptions): Promise<string>;
}

/** Carries one request to a server and resolves with the text of its response. @throws MeshError */
export type Relay = (upstream: Upstream, request: RpcRequest, options?: RelayOptions) => Promise<string>;

/** The way of every call, whichever route it came by: bounded in time, and measured. */
export function createRelay(service: Service, metrics: WorkerMetrics, load: LoadMeter): Relay {
  return async (upstream, request, { timeoutMs, ...options } = {}) => {
    const bound = timeoutFor(service, request);
    const impatient = timeoutMs !== undefined && timeoutMs < bound;
    const started = performance.now();
    const measure = (outcome: string) =>
      metrics.observe(request.method, outcome, (performance.now() - started) / 1000);
    try {
      const text = await upstream.call(request, {
        ...options,
        impatient,
        timeoutMs: impatient ? timeoutMs : bound,
      });
      measure('ok');
      load.observe(performance.now() - started);
      return text;
    } catch (fault) {
      const error = toMeshError(fault);
      measure(error.code);
      throw error;
    }
  };
}

function timeoutFor(service: Service, request: RpcRequest): number {
  const { name } = request.params;
  const known =
    request.method === 'tools/call' && typeof name === 'string' && Object.hasOwn(service.tool_timeouts, name);
  return (known ? service.tool_timeouts[name] : undefined) ?? service.timeout_ms;
}

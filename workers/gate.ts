import { createHash } from 'node:crypto';
import type { AuditLog } from '../mesh/audit-log.ts';
import { type MeshError, toMeshError } from '../mesh/errors.ts';
import { changeObject } from '../mesh/json-text.ts';
import { type AnswerKind, type RpcRequest, textAt } from '../mesh/jsonrpc.ts';
import type { Service } from '../mesh/registry.ts';
import { countsTools } from '../mesh/role-limits.ts';
import { byteLength, release, retain, type WireText } from '../mesh/wire-text.ts';
import { toToolError } from './arguments/tool-error.ts';
import type { Tracing } from './call-trace.ts';
import type { Caller } from './caller.ts';
import { requireGrant, showGranted } from './guard.ts';
import type { WorkerMetrics } from './metrics.ts';
import type { Quota, QuotaUse } from './quota.ts';
import type { Relay, RelayOptions, Upstream } from './relay.ts';

export interface GateOptions extends Omit<RelayOptions, 'principal' | 'trace' | 'onAnswer'> {
  caller: Caller;
  /** A further round of a call that was let in: it counts as one, and was looked at. */
  continued?: boolean;
  /** Arguments that do not fit are an error: the caller's protocol has one, beside the result of MCP's. */
  throwsInvalid?: boolean;
}

interface GateParts {
  service: Service;
  relay: Relay;
  quota: Quota;
  audit: AuditLog | undefined;
  metrics: Pick<WorkerMetrics, 'called'>;
  /** Whether a server lists a tool, as far as is known now. */
  isListed(upstream: Upstream, tool: string): boolean;
  tracing: Pick<Tracing, 'begin'>;
  /** Where arguments are checked. @throws MeshError `invalid_arguments` with its `errors` */
  checkArguments?: ((upstream: Upstream, request: RpcRequest) => Promise<void>) | undefined;
  /** Id of this instance, for the audit log. */
  instance(): string;
  /** Whether arguments go into the audit log as they are, and not only as a hash. */
  auditArguments: boolean;
}

/** `_meta` key of a tool's result, for callers near the end of their quota. */
const QUOTA_META = 'mcp-mesh/quota';

/** Where every call is let in, whichever route it came by: what the caller may use, and how often; and who used what. */
export class Gate {
  readonly #parts: GateParts;

  constructor(parts: GateParts) {
    this.#parts = parts;
  }

  /**
   * Refuses what the caller may not ask for, and writes that down: for requests that may be answered without a server.
   * @throws MeshError `forbidden`, `invalid_request`
   */
  check(request: RpcRequest, caller: Caller): void {
    try {
      requireGrant(request, caller);
    } catch (fault) {
      this.#record(request, caller, () => ({ outcome: toMeshError(fault).code, bytes: 0, latency_ms: 0 }));
      throw fault;
    }
  }

  /** Carries one request to a server and resolves with the text of its response. @throws MeshError */
  async call(upstream: Upstream, request: RpcRequest, options: GateOptions): Promise<WireText> {
    const { caller, continued, throwsInvalid } = options;
    const { principal } = caller;
    const { checkArguments, quota, relay, service } = this.#parts;
    const started = performance.now();
    const trace = this.#parts.tracing.begin(request, caller);
    const charge = continued ? undefined : chargeOf(request, caller, service.name);
    let charged = false;
    let use: QuotaUse | undefined;
    let text: WireText | undefined;
    let answered: AnswerKind | undefined;
    let error: MeshError | undefined;
    // It may go on when the request that it came with is over.
    retain(request.text);
    const onAnswer = (kind: AnswerKind) => {
      answered = kind;
    };
    try {
      requireGrant(request, caller);
      if (checkArguments && !continued) await checkArguments(upstream, request);
      if (charge) use = await quota.charge(charge);
      charged = true;
      text = await relay.call(upstream, request, { ...options, principal, trace, onAnswer });
      return withQuota(showGranted(request.method, text, caller.grants), use);
    } catch (fault) {
      error = toMeshError(fault);
      // What never reached the server costs nothing.
      if (charge && charged && error.delivered === 'no') await quota.refund(charge);
      if (error.errors && !throwsInvalid) return toToolError(request, error, upstream.info?.era);
      throw fault;
    } finally {
      const ms = performance.now() - started;
      const bytesOut = text === undefined ? 0 : byteLength(text);
      trace.ends(error ? { code: error.code } : { text: text ?? '' });
      this.#record(request, caller, () => ({
        outcome: error?.code ?? 'ok',
        bytes: bytesOut,
        latency_ms: Math.round(ms),
        ...trace.account(),
      }));
      this.#parts.metrics.called(request, {
        answered,
        error: error?.code,
        bytesOut,
        seconds: ms / 1000,
        continued: continued === true,
        units: use && error?.delivered !== 'no' ? this.#costOf(request) : 0,
        nearEnd: use?.warning !== undefined,
        isListed: tool => this.#parts.isListed(upstream, tool),
      });
      release(request.text);
    }
  }

  #costOf({ params: { name } }: RpcRequest): number {
    const { costs } = this.#parts.service;
    return (typeof name === 'string' && Object.hasOwn(costs, name) ? costs[name] : undefined) ?? 1;
  }

  #record(request: RpcRequest, { principal, callId }: Caller, result: () => object): void {
    const { audit, service, instance, auditArguments } = this.#parts;
    if (!audit) return;
    const { name, uri } = request.params;
    const text = textAt(request.text, ['params', 'arguments']);
    audit.write({
      time: new Date().toISOString(),
      event: 'execution',
      call_id: callId,
      principal,
      service: service.name,
      instance: instance(),
      method: request.method,
      ...(typeof name === 'string' ? { name } : {}),
      ...(typeof uri === 'string' ? { uri } : {}),
      ...(text === undefined ? {} : { arguments_sha256: createHash('sha256').update(text).digest('hex') }),
      ...(text !== undefined && auditArguments ? { arguments: text } : {}),
      ...result(),
    });
  }
}

/** Only calls of tools count, and only those of callers with such limits. */
function chargeOf({ method, params }: RpcRequest, { principal, limits }: Caller, service: string) {
  if (method !== 'tools/call' || typeof params.name !== 'string') return undefined;
  if (!countsTools(limits)) return undefined;
  return { principal, service, tool: params.name, limits };
}

function withQuota(text: WireText, use: QuotaUse | undefined): WireText {
  if (use?.warning === undefined || textAt(text, ['result']) === undefined) return text;
  return changeObject(text.toString(), ['result', '_meta'], { set: { [QUOTA_META]: JSON.stringify(use) } });
}

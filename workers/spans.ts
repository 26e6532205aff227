import { createHash } from 'node:crypto';
import {
  type Attributes,
  type Context,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { ParentBasedSampler, TraceIdRatioBasedSampler } from '@opentelemetry/sdk-trace';
import { SERVER_REQUESTS } from '../mesh/eras.ts';
import { type RpcRequest, textAt } from '../mesh/jsonrpc.ts';
import { HEADERS } from '../mesh/names.ts';
import type { TraceContext } from '../mesh/trace-context.ts';
import type { TracingSettings } from '../mesh/trace-settings.ts';
import { createTracer, toContext, toSpanContext } from '../mesh/tracer.ts';
import type { WireText } from '../mesh/wire-text.ts';
import {
  type CallResult,
  CallTrace,
  originOf,
  type TracedServer,
  type Tracing,
  withTraceContext,
} from './call-trace.ts';
import type { Caller } from './caller.ts';

/**
 * A call's spans, by the semantic conventions for MCP (open-telemetry/semantic-conventions-genai, docs/gen-ai/mcp.md,
 * status Development, on semantic-conventions 1.41). They say what was called and how it went, never with which
 * arguments: the conventions' status descriptions, arguments and results are left out, for callers' secrets are in them.
 */

interface SpanTracingOptions {
  settings: TracingSettings;
  resource: Readonly<Record<string, string>>;
  log(text: string): void;
}

/** Shorter waits are not worth a span; the attribute has them. */
const WAIT_SHOWN_MS = 1;
/** Names that are fit for the name of a span: callers choose them, and each makes a series in some back ends. */
const TARGET = /^[A-Za-z0-9_./-]{1,64}$/;
const METHODS = new Set(['initialize', 'ping', 'server/discover', ...SERVER_REQUESTS]);

export function createSpanTracing({ settings, resource, log }: SpanTracingOptions): Tracing {
  const root = new TraceIdRatioBasedSampler(settings.ratio);
  const sampler = settings.followCaller ? new ParentBasedSampler({ root }) : root;
  const { tracer, close } = createTracer({ settings, resource, sampler, log });
  return { begin: (request, caller) => new SpanTrace(tracer, request, caller), close };
}

class SpanTrace extends CallTrace {
  readonly #tracer: Tracer;
  readonly #request: RpcRequest;
  /** From performance.now() to the wall clock, once for all spans of the call: a child must not begin before its parent. */
  readonly #offset = Date.now() - performance.now();
  readonly #span: Span;
  readonly #inside: Context;
  #waitsSince: number | undefined;
  #attempt: Span | undefined;

  constructor(tracer: Tracer, request: RpcRequest, caller: Caller) {
    const { at, headers } = originOf(caller);
    super(request, headers);
    const parent = toContext(this.parent);
    this.#tracer = tracer;
    this.#request = request;
    this.#span = tracer.startSpan(
      nameOf(request),
      {
        kind: SpanKind.SERVER,
        startTime: this.#offset + at,
        attributes: { ...attributesOf(request), ...originAttributes(caller), 'network.transport': 'tcp' },
        links: this.ambient ? [{ context: toSpanContext(this.ambient) }] : [],
      },
      parent,
    );
    this.#inside = trace.setSpan(parent, this.#span);
  }

  override get traceId(): string {
    return this.#span.spanContext().traceId;
  }

  override waits(): void {
    super.waits();
    this.#waitsSince = this.#now();
  }

  override enters(request: RpcRequest, server: TracedServer): RpcRequest {
    super.enters(request, server);
    this.#endWait();
    const { pid, generation, info } = server;
    this.#attempt = this.#tracer.startSpan(
      nameOf(request),
      {
        kind: SpanKind.CLIENT,
        startTime: this.#now(),
        attributes: {
          ...attributesOf(request),
          'network.transport': 'pipe',
          ...(info ? { 'mcp.protocol.version': info.protocolVersion } : {}),
          ...(pid === undefined ? {} : { 'mcp_mesh.child.pid': pid }),
          ...(generation === undefined ? {} : { 'mcp_mesh.child.generation': generation }),
        },
      },
      this.#inside,
    );
    return withTraceContext(request, contextOf(this.#attempt));
  }

  override leaves(result: CallResult): void {
    super.leaves(result);
    this.#endWait(result);
    if (this.#attempt) conclude(this.#attempt, result, this.#now());
    this.#attempt = undefined;
  }

  protected override retries(code: string): void {
    super.retries(code);
    this.#span.addEvent('mcp_mesh.retry', { 'error.type': code }, this.#now());
  }

  override ends(result: CallResult): void {
    this.leaves(result);
    super.ends(result);
    const { queue_ms, attempts } = this.account();
    this.#span.setAttributes({ 'mcp_mesh.queue_ms': queue_ms, 'mcp_mesh.attempts': attempts });
    const id = jsonValue(this.#request.idText);
    if (id !== undefined) this.#span.setAttribute('jsonrpc.request.id', id);
    conclude(this.#span, result, this.#now());
  }

  #endWait(result?: CallResult): void {
    const since = this.#waitsSince;
    this.#waitsSince = undefined;
    if (since === undefined || this.#now() - since < WAIT_SHOWN_MS) return;
    const span = this.#tracer.startSpan('mcp_mesh.queue', { startTime: since }, this.#inside);
    if (result) conclude(span, result, this.#now());
    else span.end(this.#now());
  }

  #now(): number {
    return this.#offset + performance.now();
  }
}

/** `{mcp.method.name} {target}`; of a name that nobody has vouched for only what keeps their number small. */
function nameOf({ method, params }: RpcRequest): string {
  if (!METHODS.has(method)) return 'mcp request';
  const named = method === 'tools/call' || method === 'prompts/get';
  const target =
    named && typeof params.name === 'string' && TARGET.test(params.name) ? ` ${params.name}` : '';
  return `${method}${target}`;
}

function attributesOf({ method, params: { name, uri } }: RpcRequest): Attributes {
  const attributes: Attributes = { 'mcp.method.name': method };
  if (method === 'tools/call') attributes['gen_ai.operation.name'] = 'execute_tool';
  if (method === 'tools/call' && typeof name === 'string') attributes['gen_ai.tool.name'] = name;
  if (method === 'prompts/get' && typeof name === 'string') attributes['gen_ai.prompt.name'] = name;
  const resource = method.startsWith('resources/') && typeof uri === 'string' ? plainUri(uri) : undefined;
  if (resource !== undefined) attributes['mcp.resource.uri'] = resource;
  return attributes;
}

function originAttributes(caller: Caller): Attributes {
  const { headers } = originOf(caller);
  const session = headers[HEADERS.session];
  const version = headers[HEADERS.protocolVersion];
  return {
    'mcp_mesh.call_id': caller.callId,
    'network.protocol.name': 'http',
    // Whoever has a session's id may use it: what stands here only tells sessions apart.
    ...(typeof session === 'string' ? { 'mcp.session.id': digest(session) } : {}),
    ...(typeof version === 'string' ? { 'mcp.protocol.version': version } : {}),
  };
}

/** Without what may be secret in it: credentials, query, fragment. */
function plainUri(text: string): string | undefined {
  const uri = URL.parse(text);
  if (!uri) return undefined;
  uri.username = '';
  uri.password = '';
  uri.search = '';
  uri.hash = '';
  return uri.href;
}

function conclude(span: Span, result: CallResult, at: number): void {
  if (span.isRecording()) {
    const error = 'code' in result ? result.code : errorIn(result.text, span);
    if (error !== undefined) {
      span.setAttribute('error.type', error).setStatus({ code: SpanStatusCode.ERROR });
    }
  }
  span.end(at);
}

/** What the conventions call the error of a response: its code, or that the tool said so. */
function errorIn(text: WireText, span: Span): string | undefined {
  const code = textAt(text, ['error', 'code']);
  if (code !== undefined) {
    span.setAttribute('rpc.response.status_code', code);
    return code;
  }
  return textAt(text, ['result', 'isError']) === 'true' ? 'tool_error' : undefined;
}

function contextOf(span: Span): TraceContext {
  const { traceId, spanId, traceFlags, traceState } = span.spanContext();
  return { traceId, spanId, sampled: (traceFlags & 1) !== 0, state: traceState?.serialize() ?? '' };
}

/** A string as itself, a number as it was written. */
function jsonValue(text: string): string | undefined {
  const value: unknown = JSON.parse(text);
  return value === null ? undefined : typeof value === 'string' ? value : text;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url').slice(0, 22);
}

import { formatTraceparent, nextSpan, parseTraceContext, type TraceContext } from '../mesh/trace-context.ts';
import type { TracingSettings } from '../mesh/trace-settings.ts';
import type { MeshRequest, SpanRecord } from './handoff.ts';
import type { Outcome } from './log.ts';

/**
 * The gateway's own span of each routed call. It is the parent of the worker's, so its id is made up in the access
 * phase and handed on in the decision; the span itself is made in the log phase, of Kong's times, from what comes back
 * in the call's record. Nothing is kept in between, so a log event that never comes leaves nothing behind.
 *
 * Bodies do not come here: a trace that a client names only in `_meta` is continued by the worker, which links ours.
 */
export interface GatewayTracing {
  begin(request: MeshRequest): TracedCall;
  end(outcome: Outcome): void;
  /** Sends what has been gathered. Never rejects. */
  close(): Promise<void>;
}

export interface TracedCall {
  traceId: string;
  /** For the worker. */
  headers: Record<string, string>;
  record: SpanRecord;
}

/** Makes a span that has ended, under an id that was handed out before. */
export interface SpanWriter {
  write(outcome: Outcome, span: TraceContext, parent: TraceContext | undefined): void;
  close(): Promise<void>;
}

/** Loads the SDK in the background: a call that ends before it is there waits for it, as any span waits to be sent. */
export function createGatewayTracing(settings: TracingSettings, log: (text: string) => void): GatewayTracing {
  const writer = import('./spans.ts').then(({ createSpanWriter }) => createSpanWriter(settings, log));
  writer.catch((error: Error) => log(`tracing is off, OpenTelemetry cannot be loaded: ${error.message}`));
  return {
    begin(request) {
      const parent = callersTrace(request);
      const follow = settings.followCaller ? parent?.sampled : undefined;
      const span = nextSpan(parent, follow ?? Math.random() < settings.ratio);
      // A state that came without a trace must not become part of ours; Kong would pass it on.
      const orphan = parent === undefined && request.headers.tracestate !== undefined;
      return {
        traceId: span.traceId,
        headers: { traceparent: formatTraceparent(span), ...(orphan ? { tracestate: '' } : {}) },
        record: {
          self: formatTraceparent(span),
          ...(parent ? { parent: formatTraceparent(parent) } : {}),
        },
      };
    },
    end(outcome) {
      const span = parseTraceContext(outcome.trace?.self);
      if (!span?.sampled) return;
      const parent = parseTraceContext(outcome.trace?.parent);
      writer.then(spans => spans.write(outcome, span, parent)).catch(() => {});
    },
    close: () => writer.then(spans => spans.close()).catch(() => {}),
  };
}

/** The trace that a caller's headers name; one that is named twice is none. */
export function callersTrace({ allHeaders }: MeshRequest): TraceContext | undefined {
  const { traceparent, tracestate } = allHeaders;
  if (traceparent === undefined) return undefined;
  return parseTraceContext(traceparent, Array.isArray(tracestate) ? tracestate.join(',') : tracestate);
}

import { SpanKind, SpanStatusCode } from '@opentelemetry/api';
import { AlwaysOnSampler } from '@opentelemetry/sdk-trace';
import { MCP_PATH } from '../mesh/names.ts';
import type { TraceContext } from '../mesh/trace-context.ts';
import type { TracingSettings } from '../mesh/trace-settings.ts';
import { createTracer, toContext } from '../mesh/tracer.ts';
import type { Attempt } from './log.ts';
import type { SpanWriter } from './tracing.ts';

const ROUTE = `${MCP_PATH}/{service}`;
const RESOURCE = {
  'service.name': 'mcp-mesh-gateway',
  'service.namespace': 'mcp-mesh',
  'service.instance.id': String(process.pid),
};

/**
 * Spans by the semantic conventions for HTTP servers (1.41). Whether a call is recorded was decided when its span's id
 * was handed out, so the sampler takes all.
 */
export function createSpanWriter(settings: TracingSettings, log: (text: string) => void): SpanWriter {
  let next: TraceContext | undefined;
  const idGenerator = {
    generateTraceId: () => next?.traceId ?? '',
    generateSpanId: () => next?.spanId ?? '',
  };
  const sampler = new AlwaysOnSampler();
  const { tracer, close } = createTracer({ settings, resource: RESOURCE, sampler, idGenerator, log });
  return {
    write({ callId, service, status, tries, latencyMs, trace }, span, parent) {
      if (!trace) return;
      next = span;
      const made = tracer.startSpan(
        `${trace.method} ${ROUTE}`,
        {
          kind: SpanKind.SERVER,
          startTime: trace.startedAt,
          attributes: {
            'http.request.method': trace.method,
            'http.route': ROUTE,
            'url.path': trace.path,
            'http.response.status_code': status,
            'mcp_mesh.call_id': callId,
            'mcp_mesh.service': service,
            'mcp_mesh.tries': tries.map(describeTry),
            'mcp_mesh.kong_ms': trace.kongMs,
          },
        },
        toContext(parent),
      );
      if (status >= 500) {
        made.setAttribute('error.type', String(status)).setStatus({ code: SpanStatusCode.ERROR });
      }
      made.end(trace.startedAt + latencyMs);
    },
    close,
  };
}

function describeTry({ instance, result, reason }: Attempt): string {
  return reason === '' ? `${instance} ${result}` : `${instance} ${result}: ${reason}`;
}

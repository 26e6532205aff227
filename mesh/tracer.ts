import {
  type Context,
  createTraceState,
  DiagLogLevel,
  diag,
  ROOT_CONTEXT,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import {
  defaultResource,
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  type IdGenerator,
  type Sampler,
  type SpanExporter,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import type { TraceContext } from './trace-context.ts';
import type { TracingSettings } from './trace-settings.ts';

/**
 * The OpenTelemetry SDK, set up. Only ever imported dynamically, and only when tracing is on: it costs memory and time
 * to load, and a mesh without a collector pays for neither.
 */

interface TracerOptions {
  settings: TracingSettings;
  /** Of this program, by the semantic conventions; what OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say wins. */
  resource: Readonly<Record<string, string>>;
  sampler: Sampler;
  idGenerator?: IdGenerator;
  /** Called when sending begins to fail, and when it works again. */
  log(text: string): void;
}

export interface MeshTracer {
  tracer: Tracer;
  /** Sends what is there, for 2 s at most: a collector that hangs holds up no stop. Never rejects. */
  close(): Promise<void>;
}

/** Of the SDK's conventions that the attributes follow (open-telemetry/semantic-conventions-genai builds on it). */
const SCHEMA_URL = 'https://opentelemetry.io/schemas/1.41.0';
/** Callers choose names of tools, URIs and ids. */
const ATTRIBUTE_MAX = 256;
/** Spans that wait for the collector; beyond them the newest are dropped. */
const QUEUE_MAX = 2048;
const CLOSE_MS = 2000;

export function createTracer({ settings, resource, sampler, idGenerator, log }: TracerOptions): MeshTracer {
  // What the SDK has to say of itself: spans dropped, settings that it cannot read. Failed exports are told below.
  const quiet = () => {};
  const own = { error: quiet, warn: log, info: quiet, debug: quiet, verbose: quiet };
  diag.setLogger(own, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  const exporter = telling(new OTLPTraceExporter({ url: settings.url }), settings.url, log);
  const provider = new TracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes(resource))
      .merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] })),
    sampler,
    spanLimits: { attributeValueLengthLimit: ATTRIBUTE_MAX, eventCountLimit: 32 },
    spanProcessors: [
      new BatchSpanProcessor({ exporter, scheduledDelayMillis: settings.flushMs, maxQueueSize: QUEUE_MAX }),
    ],
    ...(idGenerator ? { idGenerator } : {}),
  });
  return {
    tracer: provider.getTracer('mcp-mesh', undefined, { schemaUrl: SCHEMA_URL }),
    async close() {
      const ended = provider.shutdown().catch(() => {});
      await Promise.race([ended, new Promise(resolve => setTimeout(resolve, CLOSE_MS).unref())]);
    },
  };
}

/** The SDK's context for the children of a span elsewhere. */
export function toContext(parent: TraceContext | undefined): Context {
  return parent ? trace.setSpanContext(ROOT_CONTEXT, toSpanContext(parent)) : ROOT_CONTEXT;
}

/** The SDK's form of a context that came from elsewhere. */
export function toSpanContext({ traceId, spanId, sampled, state }: TraceContext) {
  const traceState = state === '' ? {} : { traceState: createTraceState(state) };
  return { traceId, spanId, traceFlags: Number(sampled), isRemote: true, ...traceState };
}

/** One line when exports begin to fail and one when they work again, not one for each batch. */
function telling(exporter: SpanExporter, url: string, log: (text: string) => void): SpanExporter {
  let failing = false;
  return {
    export(spans, done) {
      exporter.export(spans, result => {
        const failed = result.error !== undefined || result.code !== 0;
        if (failed && !failing) log(`spans cannot be sent to ${url}: ${result.error?.message ?? 'refused'}`);
        if (!failed && failing) log(`spans can be sent again`);
        failing = failed;
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}

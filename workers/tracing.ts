import type { Logger } from 'pino';
import type { TracingSettings } from '../mesh/trace-settings.ts';
import { CallTrace, originOf, type Tracing } from './call-trace.ts';

/** Calls are accounted for, and a caller's own trace is passed on. */
export const NO_TRACING: Tracing = {
  begin: (request, caller) => new CallTrace(request, originOf(caller).headers),
  close: () => Promise.resolve(),
};

/**
 * Tracing as the settings say. Without any, calls are only accounted for and a caller's own trace is passed on: nothing
 * of OpenTelemetry is loaded.
 * @param resource of this worker, by the semantic conventions
 */
export async function createTracing(
  settings: TracingSettings | undefined,
  resource: Readonly<Record<string, string>>,
  log: Pick<Logger, 'warn'>,
): Promise<Tracing> {
  if (!settings) return NO_TRACING;
  const { createSpanTracing } = await import('./spans.ts');
  return createSpanTracing({ settings, resource, log: text => log.warn(text) });
}

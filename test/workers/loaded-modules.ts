import { registerHooks } from 'node:module';

/**
 * Prints, as JSON, what a worker that has served a call loaded of OpenTelemetry. `@opentelemetry/api` does not count:
 * prom-client needs it. Argument: the URL that spans go to, or nothing.
 */
const seen = new Set<string>();
registerHooks({
  resolve(specifier, context, next) {
    const found = next(specifier, context);
    if (/@opentelemetry\/(?!api\/)/.test(found.url)) seen.add(found.url);
    return found;
  },
});
const { adHocService } = await import('../../mesh/registry.ts');
const { workerSettings } = await import('../../mesh/settings.ts');
const { startWorker } = await import('../../workers/worker.ts');
const { silentLog } = await import('./helpers.ts');
const { tracingTo, WIRETAP } = await import('./tracing-helpers.ts');

const url = process.argv[2] ?? '';
const worker = await startWorker({
  service: adHocService({ name: 'wiretap', command: process.execPath, args: [WIRETAP] }),
  settings: {
    ...workerSettings({}),
    drainIdleMs: 0,
    tracing: url === '' ? undefined : tracingTo(url),
  },
  log: silentLog,
  register: false,
});
const answer = await fetch(`http://127.0.0.1:${worker.port}/execute`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: '{"command":"tell"}',
});
await answer.text();
await worker.stop();
process.stdout.write(JSON.stringify([...seen]));
process.exit(answer.ok ? 0 : 1);

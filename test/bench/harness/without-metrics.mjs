// For `node --import`: a worker whose metrics count nothing, to tell what counting costs. Production has no such switch.
import { registerHooks } from 'node:module';

const STUB = `
export function createWorkerMetrics() {
  const ignore = () => {};
  return {
    observe: ignore, retried: ignore, waited: ignore, executed: ignore, called: ignore, follow: ignore,
    expose: async () => '', contentType: 'text/plain',
  };
}`;

registerHooks({
  load(url, context, next) {
    if (!url.endsWith('/workers/metrics.ts')) return next(url, context);
    return { format: 'module', source: STUB, shortCircuit: true };
  },
});

// For `node --import`: a worker whose counting can be switched off and on by a message, to tell what it costs. Two
// processes of one program differ by more than that. Production has no such switch.
import { registerHooks } from 'node:module';

const wrapperOf = url => `
import { createWorkerMetrics as create } from '${url}?counting';
let counts = true;
process.on('message', message => {
  if (typeof message.counts !== 'boolean') return;
  ({ counts } = message);
  process.send({ counts });
});
export function createWorkerMetrics(options) {
  const metrics = create(options);
  const switched = name => (...args) => counts && metrics[name](...args);
  const hot = ['observe', 'retried', 'waited', 'executed', 'called'];
  return { ...metrics, ...Object.fromEntries(hot.map(name => [name, switched(name)])) };
}`;

registerHooks({
  load(url, context, next) {
    if (!url.endsWith('/workers/metrics.ts')) return next(url, context);
    return { format: 'module', source: wrapperOf(url), shortCircuit: true };
  },
});

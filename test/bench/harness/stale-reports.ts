import { createAdaptive } from '../../../kong-plugin/balancer/adaptive.ts';
import type { LoadReport } from '../../../mesh/load-report.ts';
import { candidatesOf } from './choosing.ts';

export interface StaleReportsOptions {
  gateways: number;
  instances: number;
  /** Calls that an instance works on at once. */
  concurrency: number;
  callMs: number;
  callsPerSecond: number;
  seconds: number;
}

interface Running {
  endsAt: number;
  instance: number;
  gateway: number;
  leave(): void;
}

const STALE_MS = 2000;
const STEP_MS = 100;

/**
 * ADAPTIVE, simulated: gateways that hear of each instance what was true 2 s before, all the time. The largest share
 * that an instance gets of the calls of any 2 s, in fair shares.
 */
export function simulateStaleReports(options: StaleReportsOptions): number {
  const { gateways, instances, concurrency, callMs, callsPerSecond, seconds } = options;
  const views = Array.from({ length: gateways }, () => ({
    strategy: createAdaptive(),
    candidates: candidatesOf(Array.from({ length: instances }, () => 1)),
  }));
  const inFlight = new Array<number>(instances).fill(0);
  const running: Running[] = [];
  const history: number[][] = [];
  const steps: number[][] = [];
  const stepsOfWindow = STALE_MS / STEP_MS;

  for (let step = 0; step < (seconds * 1000) / STEP_MS; step += 1) {
    const old = history[step - stepsOfWindow];
    if (old)
      for (const { candidates } of views)
        for (const [i, { load }] of candidates.entries())
          load.accept(reportOf(old[i] ?? 0, concurrency, callMs), step * STEP_MS);
    const counts = new Array<number>(instances).fill(0);
    for (let n = 0; n < (callsPerSecond * STEP_MS) / 1000; n += 1) {
      const now = step * STEP_MS + (n * 1000) / callsPerSecond;
      endCalls(running, now, ({ gateway, instance, leave }) => {
        const load = views[gateway]?.candidates[instance]?.load;
        inFlight[instance] = (inFlight[instance] ?? 0) - 1;
        if (!load) return;
        leave();
        load.observe(callMs, now);
      });
      const gateway = n % gateways;
      const { strategy, candidates } = views[gateway] as (typeof views)[number];
      const [chosen] = strategy.pick(candidates, { key: '', now }, 1);
      if (!chosen) throw new Error('nothing was chosen');
      const { port: instance } = chosen.instance;
      const leave = chosen.load.enter(now);
      inFlight[instance] = (inFlight[instance] ?? 0) + 1;
      counts[instance] = (counts[instance] ?? 0) + 1;
      const waits = Math.floor((inFlight[instance] ?? 0) / (concurrency + 1));
      running.push({ endsAt: now + callMs * (1 + waits), instance, gateway, leave });
    }
    history.push([...inFlight]);
    steps.push(counts);
  }
  return worstWindow(steps, stepsOfWindow, instances);
}

function endCalls(running: Running[], now: number, end: (call: Running) => void): void {
  for (let i = running.length - 1; i >= 0; i -= 1) {
    const call = running[i] as Running;
    if (call.endsAt > now) continue;
    running.splice(i, 1);
    end(call);
  }
}

function reportOf(calls: number, concurrency: number, latencyMs: number): LoadReport {
  const queueDepth = Math.max(0, calls - concurrency);
  return { cpu: 0, memory: 0, inFlight: calls - queueDepth, queueDepth, latencyMs, breakerOpen: false };
}

function worstWindow(steps: readonly number[][], length: number, instances: number): number {
  let worst = 0;
  for (let first = 0; first + length <= steps.length; first += 1) {
    const window = steps.slice(first, first + length);
    const totals = Array.from({ length: instances }, (_, i) =>
      window.reduce((sum, counts) => sum + (counts[i] ?? 0), 0),
    );
    const all = totals.reduce((sum, count) => sum + count, 0);
    worst = Math.max(worst, (Math.max(...totals) * instances) / all);
  }
  return worst;
}

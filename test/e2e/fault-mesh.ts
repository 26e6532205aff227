import type { TestContext } from 'node:test';
import type { RealConsul } from '../real-consul.ts';
import { startTcpProxy, type TcpProxy } from '../tcp-proxy.ts';
import { until } from '../until.ts';
import { type After, type FleetHarness, startFleetHarness } from './fleet-harness.ts';
import { type CallRecord, type Load, type LoadOptions, startLoad } from './load-generator.ts';

export const SHOP = 'shop';
export const BUSY = 'busy';
/** Workers that Consul knows only by what tests put in between. */
export const WIRED = 'wired';
export const SHOP_WORKERS = 3;
/** A breaker that one test opened must not keep the next one's calls away for long. */
const RECOVERY_SECONDS = 2;

/** A mesh of real processes, and the places where faults come in. */
export interface FaultMesh {
  harness: FleetHarness;
  consul: RealConsul;
  /** Past the proxies. */
  consulUrl: string;
  toConsul: { workers: TcpProxy; gateways: TcpProxy };
  /** What is to end with the mesh. */
  cleanUp: After;
}

export async function startFaultMesh(consul: RealConsul, add: After): Promise<FaultMesh> {
  add(() => consul.close());
  const port = Number(new URL(consul.url).port);
  const toConsul = { workers: await startTcpProxy(port), gateways: await startTcpProxy(port) };
  add(() => {
    for (const proxy of Object.values(toConsul)) proxy.close();
  });
  const harness = await startFleetHarness(add, {
    services: [
      {
        name: SHOP,
        workers: SHOP_WORKERS,
        // Long enough to be called while it starts.
        env: { START_MS: '300' },
        registry: { circuit_breaker: { recovery_timeout: RECOVERY_SECONDS } },
      },
      { name: BUSY, workers: 1, registry: { concurrency: 8 } },
      { name: WIRED, workers: 2, register: false },
    ],
    consulUrl: consul.url,
    workersConsulUrl: `http://127.0.0.1:${toConsul.workers.port}`,
    gatewaysConsulUrl: `http://127.0.0.1:${toConsul.gateways.port}`,
    gateways: 2,
    // A proxy at a port of its own is just what the proof keeps out.
    prove: false,
  });
  return { harness, consul, consulUrl: consul.url, toConsul, cleanUp: add };
}

/** Everything as it was at first, whatever the last test did. */
export async function restore({ harness, toConsul }: FaultMesh): Promise<void> {
  await Promise.all(Object.values(toConsul).map(proxy => proxy.set('pass')));
  for (const worker of harness.workers(SHOP)) {
    if (worker.running) worker.signal('SIGCONT');
    else await worker.restart();
  }
  await harness.healthy(SHOP, SHOP_WORKERS);
}

/** Load on the shop by all gateways, in every way, until stopped or the test ends. */
export async function startFaultLoad(
  t: TestContext,
  { urls }: FleetHarness,
  options: Partial<LoadOptions> = {},
): Promise<Load> {
  const load = await startLoad({ urls, service: SHOP, inFlight: 16, serverMs: [10, 50], ...options });
  t.after(() => load.stop());
  return load;
}

/** Waits until so many more calls have ended. */
export function ended({ ended: calls }: Load, count: number): Promise<true> {
  const before = calls.length;
  return until(`${count} more calls`, () => calls.length >= before + count);
}

/** Calls that failed, in words. */
export function failedOf(calls: readonly CallRecord[]): string[] {
  return calls.filter(({ ok }) => !ok).map(brief);
}

/** Calls that were executed more than once. */
export function twice(calls: readonly CallRecord[], executions: Map<string, number[]>): string[] {
  return calls.filter(({ id }) => (executions.get(id)?.length ?? 0) > 1).map(brief);
}

export function brief({ id, via, status, text }: CallRecord): string {
  return `${id} ${via} ${status} ${text}`;
}

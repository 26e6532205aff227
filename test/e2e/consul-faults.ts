import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import type { Fault, TcpProxy } from '../tcp-proxy.ts';
import { until } from '../until.ts';
import { ended, type FaultMesh, failedOf, SHOP, SHOP_WORKERS, startFaultLoad } from './fault-mesh.ts';

const FAULTS: Fault[] = ['drop', 'reset', 'refuse'];
const CALLS = 100;

/** Consul out of reach, or gone. */
export function consulFaults(mesh: () => FaultMesh): void {
  for (const part of ['workers', 'gateways'] as const) {
    test(`${part} that are cut off from Consul serve on`, async t => {
      const { harness, toConsul, consulUrl } = mesh();
      const load = await startFaultLoad(t, harness);
      for (const fault of FAULTS) {
        await toConsul[part].set(fault);
        await hit(toConsul[part], fault, consulUrl);
        await ended(load, CALLS);
        await toConsul[part].set('pass');
        await ended(load, CALLS);
      }
      assert.deepEqual(failedOf(await load.stop()), [], harness.output());
      await harness.healthy(SHOP, SHOP_WORKERS);
    });
  }

  test('Consul killed and started again without its memory: no call fails, the workers register again', async t => {
    const { harness, consul, consulUrl } = mesh();
    const load = await startFaultLoad(t, harness);
    await ended(load, CALLS);
    await consul.kill();
    const words = ['Consul does not take the registration', 'Consul cannot be read'];
    await until('word of it from workers and gateways', () =>
      words.every(text => harness.output().includes(text)),
    );
    await ended(load, CALLS);
    await consul.restart();
    await until('registrations of all workers', async () => {
      const response = await fetch(`${consulUrl}/v1/health/service/mcp-${SHOP}?passing`);
      return ((await response.json()) as unknown[]).length === SHOP_WORKERS;
    });
    await harness.healthy(SHOP, SHOP_WORKERS);
    await ended(load, CALLS);
    const calls = await load.stop();
    const failed = failedOf(calls);
    t.diagnostic(`${calls.length} calls, ${failed.length} failed`);
    assert.deepEqual(failed.slice(0, 5), [], `${failed.length} of ${calls.length}\n${harness.output()}`);
  });
}

/** Waits until a fault has met something; what only loses bytes gets some to lose: a change in Consul. */
async function hit(proxy: TcpProxy, fault: Fault, consulUrl: string): Promise<void> {
  if (fault === 'refuse') return;
  const body = JSON.stringify({ Name: 'noise', ID: `noise-${randomUUID()}` });
  const response = await fetch(`${consulUrl}/v1/agent/service/register`, { method: 'PUT', body });
  assert.equal(response.status, 200);
  await until(`effect of ${String(fault)}`, () => proxy.hits() > 0);
}

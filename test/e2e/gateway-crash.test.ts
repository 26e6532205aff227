import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startRealConsul } from '../real-consul.ts';
import { until } from '../until.ts';
import { collectCleanUps, type FleetHarness, startFleetHarness } from './fleet-harness.ts';
import { type CallRecord, callMark, startLoad } from './load-generator.ts';

const SERVICE = 'shop';
const WORKERS = 2;
const CRASHES = 3;

const real = await startRealConsul();
const skip = real.consul ? false : process.env.CI ? false : real.reason;

describe('the plugin server killed with -9 under load', { skip }, () => {
  const cleanUps = collectCleanUps();
  cleanUps.add(() => real.consul?.close());
  after(() => cleanUps.run());
  let harness: FleetHarness;
  let calls: CallRecord[] = [];
  before(async () => {
    assert.ok(real.consul, real.reason);
    harness = await startFleetHarness(cleanUps.add, {
      // In turn, so that a few calls show each instance.
      services: [{ name: SERVICE, workers: WORKERS, registry: { load_balancer: 'ROUND_ROBIN' } }],
      consulUrl: real.consul.url,
    });
    const { urls } = harness;
    const load = await startLoad({ urls, service: SERVICE, inFlight: 32, serverMs: [20, 200] });
    cleanUps.add(() => load.stop());
    for (let crash = 0; crash < CRASHES; crash += 1) {
      await answered(load.ended, 100);
      await killPluginServer(harness);
      await answered(load.ended, 1);
    }
    await answered(load.ended, 100);
    calls = await load.stop();
  });

  test('what came while it was away is refused by Kong, and no worker saw it', t => {
    const failed = calls.filter(({ ok }) => !ok);
    const kinds = Object.groupBy(failed, ({ status, error }) => `${status} ${error.code ?? 'of Kong'}`);
    const counts = Object.entries(kinds).map(([kind, some]) => `${some?.length} × ${kind}`);
    t.diagnostic(`${CRASHES} crashes, ${calls.length} calls, refused: ${counts.join(', ')}`);
    assert.ok(failed.length > 0, 'some came while it was away');
    for (const { status, error, text } of failed) {
      const ours = status === 503 && error.code === 'no_decision';
      const kongs = status === 500 && text.includes('An unexpected error occurred');
      assert.ok(ours || kongs, `${status} ${text}`);
    }
    const executions = harness.executions();
    assert.deepEqual(
      failed.filter(({ id }) => executions.has(id)),
      [],
    );
    const succeeded = calls.filter(({ ok }) => ok);
    assert.deepEqual(
      succeeded.filter(({ id }) => executions.get(id)?.length !== 1),
      [],
    );
  });

  test('no call stays counted', async () => {
    await until('empty counts', async () => {
      const { details } = await harness.status(SERVICE);
      return details.length === WORKERS && details.every(({ load }) => (load?.in_flight ?? 0) === 0);
    });
  });

  test('calls work again, on all instances', async () => {
    const target = { url: harness.urls[0] ?? '', service: SERVICE };
    const servers = new Set<number | undefined>();
    await until('answers of all instances', async () => {
      const call = await callMark(target);
      assert.equal(call.status, 200, call.text);
      servers.add(harness.executions().get(call.id)?.[0]);
      return servers.size === WORKERS;
    });
  });
});

/** Waits until so many more calls succeeded. */
async function answered(calls: readonly CallRecord[], count: number): Promise<void> {
  const from = calls.length;
  await until(`${count} more answers`, () => calls.slice(from).filter(({ ok }) => ok).length >= count);
}

async function killPluginServer({ gateways }: FleetHarness): Promise<void> {
  const [gateway] = gateways;
  const pid = gateway?.pluginServerPid();
  assert.ok(gateway && pid !== undefined);
  process.kill(pid, 'SIGKILL');
  await until('a new plugin server', () => ![undefined, pid].includes(gateway.pluginServerPid()));
}

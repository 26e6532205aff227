import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { startRealConsul } from '../real-consul.ts';
import { collectCleanUps, restartInTurn, startFleetHarness } from './fleet-harness.ts';
import { startLoad } from './load-generator.ts';

const SERVICE = 'shop';
const WORKERS = 3;
/** test/soak/rolling-restart.ts has 100. */
const ROUNDS = 5;
const IN_FLIGHT = 16;

const real = await startRealConsul();
const skip = real.consul ? false : process.env.CI ? false : real.reason;

describe('rolling restart, with a real Consul', { skip }, () => {
  const cleanUps = collectCleanUps();
  cleanUps.add(() => real.consul?.close());
  after(() => cleanUps.run());

  test(`${ROUNDS} restarts of all instances under load fail no call`, { timeout: 300_000 }, async t => {
    assert.ok(real.consul, real.reason);
    const harness = await startFleetHarness(cleanUps.add, {
      services: [{ name: SERVICE, workers: WORKERS }],
      consulUrl: real.consul.url,
      gateways: 2,
      idleMs: 300,
    });
    const load = await startLoad({
      urls: harness.urls,
      service: SERVICE,
      inFlight: IN_FLIGHT,
      serverMs: [20, 120],
    });
    t.after(() => load.stop());
    const pids = new Set(harness.workers(SERVICE).map(({ pid }) => pid));
    for (let round = 1; round <= ROUNDS; round += 1) {
      await restartInTurn(harness, SERVICE);
      for (const { pid } of harness.workers(SERVICE)) pids.add(pid);
    }
    const calls = await load.stop();

    const failed = calls.filter(({ ok }) => !ok);
    t.diagnostic(
      `${ROUNDS} rounds, ${pids.size - WORKERS} restarts, ${calls.length} calls, ${failed.length} failed`,
    );
    assert.deepEqual(
      failed.map(({ via, status, text }) => `${via} ${status} ${text}`),
      [],
      harness.output(),
    );
    assert.equal(pids.size, WORKERS * (ROUNDS + 1));
    const executions = harness.executions();
    assert.deepEqual(
      calls.filter(({ id }) => executions.get(id)?.length !== 1),
      [],
      'each call was executed once',
    );
  });
});

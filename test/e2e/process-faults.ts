import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../until.ts';
import {
  BUSY,
  brief,
  ended,
  type FaultMesh,
  failedOf,
  SHOP,
  SHOP_WORKERS,
  startFaultLoad,
  twice,
} from './fault-mesh.ts';
import type { FleetHarness } from './fleet-harness.ts';
import { type CallRecord, callMark } from './load-generator.ts';

/** Longer than Consul's check takes to give up: 2 s between two and 5 s for one (workers/registration.ts). */
const BURN_MS = 9000;
const QUEUED = 64;
/** Consul's words for a check that got none. */
const NO_ANSWER = /timeout|deadline exceeded|TTL expired/i;

/** Workers that are killed, stopped, told to stop, or busy. */
export function processFaults(mesh: () => FaultMesh): void {
  test('kill -9 under 64 calls in flight: what fails was inside, and says that it may have been executed', async t => {
    const { harness } = mesh();
    const [victim] = harness.workers(SHOP);
    assert.ok(victim);
    const [server] = victim.serverPids();
    const load = await startFaultLoad(t, harness, { inFlight: 64, serverMs: [50, 200] });
    await ended(load, 300);
    victim.signal('SIGKILL');
    await victim.ended();
    const goneAt = performance.now();
    await ended(load, 400);
    const calls = await load.stop();

    const failed = calls.filter(({ ok }) => !ok);
    const after = calls.filter(({ startedAt }) => startedAt > goneAt);
    t.diagnostic(`${calls.length} calls, ${failed.length} failed; slowest ms: ${slowest(calls, goneAt)}`);
    assert.ok(failed.length > 0, 'the worker had calls inside');
    assert.ok(after.length >= 250, `${after.length} calls began after the kill`);
    assert.deepEqual(failed.filter(({ startedAt }) => startedAt > goneAt).map(brief), []);
    for (const call of failed) {
      const expected = { code: 'worker_lost', delivered: 'unknown', call_id: call.id };
      assert.deepEqual([call.status, call.error], [502, expected], brief(call));
      assert.equal(call.contentType, call.via === 'rest' ? 'application/problem+json' : 'application/json');
    }
    const executions = harness.executions();
    for (const { id } of failed) assert.ok([undefined, server].includes(executions.get(id)?.[0]));
    assert.deepEqual(twice(calls, executions), []);
  });

  test('a worker that is back before it was missed lets calls wait for its server', async () => {
    const { harness, toConsul } = mesh();
    const [, victim] = harness.workers(SHOP);
    assert.ok(victim);
    // However soon Consul notices, gateways take its old life at this port for passing.
    await toConsul.gateways.set({ delayMs: 2000 });
    victim.signal('SIGKILL');
    await victim.ended();
    await victim.restart();
    const { healthy } = await harness.status(SHOP);
    const target = { url: harness.urls[0] ?? '', service: SHOP };
    const calls = await Promise.all(Array.from({ length: 32 }, () => callMark(target)));
    assert.deepEqual(failedOf(calls), [], harness.output());
    assert.equal(healthy, SHOP_WORKERS);
  });

  test('a stopped worker is noticed and avoided until it runs again; its calls are answered then', async t => {
    const { harness } = mesh();
    const [, victim] = harness.workers(SHOP);
    assert.ok(victim);
    const [server] = victim.serverPids();
    t.after(() => victim.signal('SIGCONT'));
    const caught = await startFaultLoad(t, harness);
    await ended(caught, 50);
    victim.signal('SIGSTOP');
    await until('word of the stopped worker, with the reason', async () => {
      const statuses = await Promise.all(harness.urls.map((_, gateway) => harness.status(SHOP, gateway)));
      return statuses.every(({ details }) => {
        const { state, reason = '' } = details.find(({ id }) => id === victim.instance) ?? {};
        return state === 'critical' && NO_ANSWER.test(reason);
      });
    });
    // Others: those of the first load may all hang in the stopped worker.
    const avoiding = await startFaultLoad(t, harness);
    await ended(avoiding, 200);
    const avoided = await avoiding.stop();
    victim.signal('SIGCONT');
    await harness.healthy(SHOP, SHOP_WORKERS);
    const calls = await caught.stop();

    assert.deepEqual(failedOf([...calls, ...avoided]), [], harness.output());
    const executions = harness.executions();
    assert.deepEqual(
      avoided.filter(({ id }) => executions.get(id)?.[0] === server),
      [],
    );
    assert.deepEqual(twice(calls, executions), []);
  });

  test('a worker whose server burns CPU while 64 calls wait is not taken for dead', async () => {
    const { harness } = mesh();
    const states = new Set<string | undefined>();
    let done = false;
    const watch = until('end of the burning', async () => {
      const { details } = await harness.status(BUSY);
      states.add(`${details[0]?.state} ${details[0]?.reason ?? ''}`.trim());
      return done;
    });
    const burning = fetch(`${harness.urls[0]}/api/v1/mcp/${BUSY}/execute`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ command: 'burn', params: { ms: BURN_MS } }),
    });
    await until('the burning call', () => inside(harness));
    const target = { url: harness.urls[0] ?? '', service: BUSY };
    const calls = await Promise.all(Array.from({ length: QUEUED }, () => callMark(target)));
    assert.equal((await burning).status, 200);
    done = true;
    await watch;
    assert.deepEqual(failedOf(calls), []);
    assert.deepEqual([...states], ['passing']);
  });
}

/** Instances that are to be left alone: drained, or in maintenance. */
export function plannedStops(mesh: () => FaultMesh): void {
  test('Consul’s maintenance mode takes an instance out, and back in, without a failed call', async t => {
    const { harness, consulUrl } = mesh();
    const [, , victim] = harness.workers(SHOP);
    assert.ok(victim);
    const [server] = victim.serverPids();
    const maintain = async (enable: boolean) => {
      const query = `enable=${enable}&reason=new+disk`;
      const path = `/v1/agent/service/maintenance/${victim.instance}?${query}`;
      assert.equal((await fetch(`${consulUrl}${path}`, { method: 'PUT' })).status, 200);
    };
    const load = await startFaultLoad(t, harness);
    await maintain(true);
    const seen = await until('maintenance in the status', async () => {
      const statuses = await Promise.all(harness.urls.map((_, gateway) => harness.status(SHOP, gateway)));
      const found = statuses.map(({ details }) => details.find(({ id }) => id === victim.instance));
      return found.every(detail => detail?.state === 'maintenance') && found[0];
    });
    const outAt = performance.now();
    assert.match(seen.reason ?? '', /new disk/);
    await ended(load, 200);
    const backAt = performance.now();
    await maintain(false);
    await harness.healthy(SHOP, SHOP_WORKERS);
    const again = async () => {
      const executions = harness.executions();
      return load.ended.some(({ id, startedAt }) => startedAt > backAt && executions.get(id)?.[0] === server);
    };
    await until('a call on the instance that is back', again);
    const calls = await load.stop();

    assert.deepEqual(failedOf(calls), []);
    const executions = harness.executions();
    // What began before it was back may have been decided after.
    const out = calls.filter(({ startedAt, endedAt }) => startedAt > outAt && endedAt < backAt);
    assert.ok(out.length >= 150, `${out.length} calls came meanwhile`);
    assert.deepEqual(
      out.filter(({ id }) => executions.get(id)?.[0] === server),
      [],
    );
  });

  test('SIGTERM under load: the worker answers what it has and ends; no call fails', async t => {
    const { harness } = mesh();
    const [victim] = harness.workers(SHOP);
    assert.ok(victim);
    const load = await startFaultLoad(t, harness, { inFlight: 64, serverMs: [50, 500] });
    await ended(load, 100);
    victim.signal('SIGTERM');
    assert.equal(await victim.ended(), 0, harness.output());
    await ended(load, 100);
    const calls = await load.stop();
    assert.deepEqual(failedOf(calls), [], harness.output());
    const executions = harness.executions();
    assert.deepEqual(twice(calls, executions), []);
  });
}

async function inside(harness: FleetHarness): Promise<boolean> {
  const { details } = await harness.status(BUSY);
  return details[0]?.load?.in_flight === 1;
}

/** The slowest call before and after a moment. */
function slowest(calls: readonly CallRecord[], moment: number): string {
  const worst = (some: CallRecord[]) =>
    Math.round(Math.max(0, ...some.map(({ startedAt, endedAt }) => endedAt - startedAt)));
  const before = calls.filter(({ endedAt }) => endedAt < moment);
  const after = calls.filter(({ startedAt }) => startedAt > moment);
  return `${worst(before)} before the kill, ${worst(after)} after it`;
}

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createConsul, type Registration } from '../../mesh/consul.ts';
import { startBlackHole, startTcpProxy, type TcpProxy } from '../tcp-proxy.ts';
import { until } from '../until.ts';
import { brief, ended, type FaultMesh, failedOf, startFaultLoad, twice, WIRED } from './fault-mesh.ts';
import type { After, FleetHarness } from './fleet-harness.ts';
import { type CallRecord, callMark, type Via } from './load-generator.ts';
import type { WorkerProcess } from './worker-process.ts';

const HOST = '127.0.0.1';
const TTL_SECONDS = 600;
const VIAS: Via[] = ['rest', 'modern'];

/** The wired workers' instances as one test has them. */
interface Wires {
  calls(count: number): Promise<CallRecord[]>;
  /** Takes an instance out of Consul, as its worker would. */
  deregister(port: number): Promise<void>;
  remove(): Promise<void>;
}

/** An instance: the port that gateways are told, and the worker behind it. */
type Wire = [port: number, worker: WorkerProcess];

/** Calls that are under way, through a connection that lost some of their bytes. */
export interface Stalled {
  fault: 'drop' | 'drop-up' | 'drop-down';
  calls: Promise<CallRecord[]>;
}

/** The network between gateways and workers. */
export function networkFaults(mesh: () => FaultMesh, stalled: Stalled[]): void {
  test('calls whose bytes are lost do not keep others waiting', async t => {
    const [, worker] = mesh().harness.workers(WIRED);
    assert.ok(worker);
    for (const fault of ['drop', 'drop-up', 'drop-down'] as const) {
      const proxy = await proxied(worker, mesh().cleanUp);
      const wires = await wire(t, mesh(), [[proxy.port, worker]]);
      assert.deepEqual(failedOf(await wires.calls(2)), [], 'before the fault');
      await proxy.set(fault);
      // Kong's time-out is 30 s above the worker's: they end while the next tests run.
      stalled.push({ fault, calls: wires.calls(2) });
      await until(`effect of ${fault}`, () => proxy.hits() > 0);
      await wires.remove();
    }
    const wires = await wire(t, mesh(), [[worker.port, worker]]);
    assert.deepEqual(failedOf(await wires.calls(4)), []);
  });

  test('a refused connection goes to the next instance', async t => {
    const { harness } = mesh();
    const { proxy, wires } = await wireBoth(t, mesh());
    await proxy.set('refuse');
    const calls = await wires.calls(12);
    assert.deepEqual(failedOf(calls), [], harness.output());
    assert.ok(harness.output().includes(`connect ECONNREFUSED ${HOST}:${proxy.port}`), 'it was tried');
    onceEach(calls, harness.executions());
  });

  test('a host that does not answer at all costs a time-out of the connection, then the next instance is tried', async t => {
    const { harness } = mesh();
    const { proxy, wires } = await wireBoth(t, mesh());
    proxy.close();
    const hole = await startBlackHole(proxy.port);
    t.after(() => hole.close());
    const calls = await wires.calls(8);
    assert.deepEqual(failedOf(calls), [], harness.output());
    assert.ok(
      harness.output().includes(`upstream ${HOST}:${proxy.port}: connecting timed out`),
      'it was tried',
    );
    onceEach(calls, harness.executions());
  });

  test('a slow network delivers every call once', async t => {
    const { harness } = mesh();
    const { proxy, wires } = await wireBoth(t, mesh());
    await proxy.set({ delayMs: 150 });
    const calls = await wires.calls(12);
    assert.deepEqual(failedOf(calls), []);
    onceEach(calls, harness.executions());
  });

  test('a call whose connection is reset was not executed, or says that it may have been', async t => {
    const { harness } = mesh();
    const { proxy, wires } = await wireBoth(t, mesh());
    await proxy.set('reset');
    const calls = await wires.calls(8);
    assert.ok(proxy.hits() > 0, 'it was tried');
    const executions = harness.executions();
    // Where the reset comes before the connection is seen to stand, nothing was sent and the next instance is tried.
    for (const call of calls.filter(({ ok }) => !ok)) {
      hasFailed(call, 502, 'worker_lost');
      assert.equal(executions.get(call.id), undefined, brief(call));
    }
    onceEach(
      calls.filter(({ ok }) => ok),
      executions,
    );
  });

  test('a call whose answer is lost was executed once, and is not sent again', async t => {
    const { harness } = mesh();
    const { proxy, wires } = await wireBoth(t, mesh());
    await proxy.set('cut');
    const calls = await wires.calls(4);
    const failed = calls.filter(({ ok }) => !ok);
    assert.ok(failed.length > 0 && failed.length < calls.length, 'some went each way');
    for (const call of failed) hasFailed(call, 502, 'worker_lost');
    onceEach(calls, harness.executions());
  });

  test('gateways that hear late of a worker’s end, over a slow network, lose no call by it', async t => {
    const { harness, toConsul } = mesh();
    const [near, far] = twoWorkers(harness);
    const [first, second] = [await proxied(far, t), await proxied(near, t)];
    for (const proxy of [first, second]) await proxy.set({ delayMs: 40 });
    const wires = await wire(t, mesh(), [
      [first.port, far],
      [second.port, near],
    ]);
    await toConsul.gateways.set({ delayMs: 300 });
    const load = await startFaultLoad(t, harness, {
      service: WIRED,
      inFlight: 32,
      serverMs: [0, 20],
      via: VIAS,
    });
    await ended(load, 100);
    await wires.deregister(first.port);
    far.signal('SIGTERM');
    assert.equal(await far.ended(), 0);
    const calls = await load.stop();
    assert.deepEqual(failedOf(calls), [], harness.output());
    assert.deepEqual(twice(calls, harness.executions()), []);
    await far.restart();
  });
}

/** To come last: what began in `networkFaults` has ended meanwhile. */
export function stalledCalls(mesh: () => FaultMesh, stalled: readonly Stalled[]): void {
  test('what hung is answered by the time-out, says that it may have been executed, and was not sent again', async () => {
    const executions = mesh().harness.executions();
    assert.equal(stalled.length, 3);
    for (const { fault, calls } of stalled) {
      for (const call of await calls) {
        hasFailed(call, 504, 'timeout');
        const expected = fault === 'drop-down' ? 1 : undefined;
        assert.equal(executions.get(call.id)?.length, expected, `${fault}: ${brief(call)}`);
      }
    }
  });
}

function hasFailed(call: CallRecord, status: number, code: string): void {
  const expected = { code, delivered: 'unknown', call_id: call.id };
  assert.deepEqual([call.status, call.error], [status, expected], brief(call));
}

function onceEach(calls: readonly CallRecord[], executions: Map<string, number[]>): void {
  const others = calls.filter(({ id }) => executions.get(id)?.length !== 1);
  assert.deepEqual(others.map(brief), []);
}

/** One instance behind a proxy, one without; both work. */
async function wireBoth(t: TestContext, mesh: FaultMesh): Promise<{ proxy: TcpProxy; wires: Wires }> {
  const [near, far] = twoWorkers(mesh.harness);
  const proxy = await proxied(far, t);
  const wires = await wire(t, mesh, [
    [proxy.port, far],
    [near.port, near],
  ]);
  assert.deepEqual(failedOf(await wires.calls(4)), [], 'before the fault');
  return { proxy, wires };
}

/** The second keeps what is stalled: faults that end a worker are for the other. */
function twoWorkers(harness: FleetHarness): [near: WorkerProcess, far: WorkerProcess] {
  const [far, near] = harness.workers(WIRED);
  assert.ok(near && far);
  return [near, far];
}

async function proxied(worker: WorkerProcess, cleanUp: TestContext | After): Promise<TcpProxy> {
  const proxy = await startTcpProxy(worker.port);
  const close = () => proxy.close();
  if (typeof cleanUp === 'function') cleanUp(close);
  else cleanUp.after(close);
  return proxy;
}

/**
 * Makes these the instances of the wired service. Consul checks the workers past what is between: an instance stays
 * passing, however broken its connection to the gateways is.
 */
async function wire(t: TestContext, mesh: FaultMesh, wires: Wire[]): Promise<Wires> {
  const { harness } = mesh;
  const consul = createConsul({ url: mesh.consulUrl });
  const idOf = (port: number) => `mcp-${WIRED}-${port}`;
  const remove = async () => {
    for (const [port] of wires) await consul.deregister(idOf(port));
  };
  t.after(async () => {
    await remove();
    consul.close();
  });
  await consul.putDefinition(WIRED, { load_balancer: 'ROUND_ROBIN', timeout_ms: 500 });
  for (const [port, worker] of wires) {
    await consul.register(registration(idOf(port), port, worker.port));
    await consul.report(idOf(port), 'passing', 'wired by the test');
  }
  // By their ids: gateways may still see as many of the test before.
  await harness.healthy(
    WIRED,
    wires.map(([port]) => idOf(port)),
  );
  const target = { url: harness.urls[0] ?? '', service: WIRED };
  return {
    calls: count =>
      Promise.all(
        Array.from({ length: count }, (_, i) => callMark(target, { via: VIAS[i % VIAS.length] ?? 'rest' })),
      ),
    deregister: port => consul.deregister(idOf(port)),
    remove,
  };
}

function registration(id: string, port: number, healthPort: number): Registration {
  return {
    id,
    name: `mcp-${WIRED}`,
    address: HOST,
    port,
    tags: ['mcp'],
    meta: { mcp_server: WIRED, instance: id, started_at: new Date().toISOString() },
    weights: { passing: 100, warning: 10 },
    ttlSeconds: TTL_SECONDS,
    deregisterAfterSeconds: TTL_SECONDS,
    health: { url: `http://${HOST}:${healthPort}/health`, intervalSeconds: 1, timeoutSeconds: 5 },
  };
}

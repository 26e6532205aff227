import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type CallRecord, type Load, startLoad } from '../../e2e/load-generator.ts';
import { makeKeys, startTestGateway, workerKeys } from './gateway.ts';
import { scripted, startTestFleet, type TestFleet, until } from './helpers.ts';

const SERVICE = 'shop';
const IN_FLIGHT = 12;

/** A fleet behind a gateway, under load that never pauses. */
async function startShop(
  t: TestContext,
  fields: object,
): Promise<{ mesh: TestFleet; load: Load; marks: string }> {
  const keys = makeKeys();
  const marks = join(tmpdir(), `fleet-marks-${process.pid}-${Math.random()}`);
  writeFileSync(marks, '');
  const mesh = await startTestFleet(t, [scripted(SERVICE, { env: { MARKS: marks }, ...fields })], {
    worker: service => workerKeys(keys, service),
  });
  mesh.cleanUp(() => rmSync(marks));
  const url = await startTestGateway(mesh, keys);
  await until('a first call', async () => (await fetch(`${url}/api/v1/mcp/${SERVICE}/tools`)).ok);
  const load = await startLoad({ urls: [url], service: SERVICE, inFlight: IN_FLIGHT, serverMs: [10, 80] });
  mesh.cleanUp(() => load.stop());
  return { mesh, load, marks };
}

/** No call failed, and each was executed once. */
function assertSound(t: TestContext, calls: readonly CallRecord[], marks: string): void {
  const failed = calls.filter(({ ok }) => !ok).map(({ via, status, text }) => `${via} ${status} ${text}`);
  t.diagnostic(`${calls.length} calls, ${failed.length} failed`);
  assert.deepEqual(failed, []);
  const ids = readFileSync(marks, 'utf8')
    .split('\n')
    .map(line => line.split(' ')[0]);
  const executed = ids.filter(id => id !== '');
  assert.equal(executed.length, calls.length);
  assert.equal(new Set(executed).size, calls.length);
}

async function ended(load: Load, more: number): Promise<void> {
  const wanted = load.ended.length + more;
  await until(`${more} more calls`, () => load.ended.length >= wanted);
}

test('scaling 1 → 5 → 1 under load loses no call', async t => {
  const { mesh, load, marks } = await startShop(t, {});
  const [first] = await mesh.ready(SERVICE, 1);
  await mesh.fleet.scale(SERVICE, 5);
  await mesh.passing(SERVICE, 5);
  await ended(load, 300);
  const pids = new Set(readFileSync(marks, 'utf8').match(/(?<= )\d+$/gm));
  assert.equal(pids.size, 5, 'all five take part');
  await mesh.fleet.scale(SERVICE, 1);
  await mesh.passing(SERVICE, 1);
  await ended(load, 100);
  assert.equal(mesh.rows(SERVICE)[0]?.restarts, first?.restarts);
  assertSound(t, await load.stop(), marks);
});

test('a rolling restart under load loses no call, ids and ports stay', async t => {
  const { mesh, load, marks } = await startShop(t, { instances: 2 });
  const before = await mesh.ready(SERVICE, 2);
  await mesh.passing(SERVICE, 2);
  await mesh.fleet.restart({ service: SERVICE });
  const after = await mesh.ready(SERVICE, 2);
  await ended(load, 50);
  assertSound(t, await load.stop(), marks);
  assert.deepEqual(
    after.map(({ id }) => id),
    before.map(({ id }) => id),
  );
  assert.ok(after.every(({ pid }, index) => pid !== before[index]?.pid));
});

test('the only instance is restarted without a lost call: a deputy stands in', async t => {
  const { mesh, load, marks } = await startShop(t, {});
  const [before] = await mesh.ready(SERVICE, 1);
  await mesh.fleet.restart({ instance: before?.id ?? '' });
  const [after] = await mesh.ready(SERVICE, 1);
  await ended(load, 50);
  assertSound(t, await load.stop(), marks);
  assert.equal(after?.id, before?.id);
  assert.notEqual(after?.pid, before?.pid);
});

test('instances follow the load: more when it comes, fewer when it goes, and no call is lost', async t => {
  const { mesh, load, marks } = await startShop(t, { instances: { min: 1, max: 3, target_in_flight: 4 } });
  await mesh.ready(SERVICE, 3);
  await mesh.passing(SERVICE, 3);
  await ended(load, 200);
  const calls = await load.stop();
  await mesh.ready(SERVICE, 1);
  assertSound(t, calls, marks);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runChaos } from './chaos.ts';

/** test/soak/fleet.ts has 20 services, 10,000 calls and 1,000 signals. */
const PLAN = { services: 4, calls: 600, kills: 40 };
/** Compiled code and caches; a call that is kept for ever would show with the soak's numbers. */
const GROWTH_MB = 15;

test(`${PLAN.calls} calls and ${PLAN.kills} kills leave no process, zombie, descriptor or memory behind`, async t => {
  const { before, after, stopped, answered, failed, signals } = await runChaos(PLAN);
  t.diagnostic(`${JSON.stringify(PLAN)}: ${answered} answered, ${failed} failed; ${JSON.stringify(signals)}`);
  t.diagnostic(`before ${JSON.stringify(before)}, after ${JSON.stringify(after)}`);
  assert.equal(before.processes, PLAN.services * 2, 'workers and their servers');
  assert.equal(answered + failed, PLAN.calls, 'every call ended');
  assert.ok(answered > PLAN.calls / 4, `${answered} calls were answered`);
  assert.equal(after.processes, before.processes);
  assert.equal(after.zombies, 0);
  assert.ok(
    after.descriptors <= before.descriptors,
    `${before.descriptors} descriptors, now ${after.descriptors}`,
  );
  assert.ok(after.heapMb <= before.heapMb + GROWTH_MB, `${before.heapMb} MB, now ${after.heapMb}`);
  assert.deepEqual([stopped.processes, stopped.zombies], [0, 0]);
});

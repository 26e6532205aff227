import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Ports } from '../../../workers/fleet/ports.ts';
import { StartGate } from '../../../workers/fleet/start-gate.ts';

const never = new AbortController().signal;

test('the gate lets so many in, the next one when one leaves, in their order', async () => {
  const gate = new StartGate(2);
  const inside: number[] = [];
  const leaves = new Map<number, () => void>();
  for (const who of [1, 2, 3, 4]) {
    void gate.enter(never).then(leave => {
      inside.push(who);
      if (leave) leaves.set(who, leave);
    });
  }
  await turn();
  assert.deepEqual(inside, [1, 2]);
  leaves.get(2)?.();
  leaves.get(2)?.();
  await turn();
  assert.deepEqual(inside, [1, 2, 3], 'leaving twice is leaving once');
  leaves.get(1)?.();
  await turn();
  assert.deepEqual(inside, [1, 2, 3, 4]);
});

test('who gives up takes no place with them', async () => {
  const gate = new StartGate(1);
  const leave = await gate.enter(never);
  const giving = new AbortController();
  const given = gate.enter(giving.signal);
  const next = gate.enter(never);
  giving.abort();
  assert.equal(await given, undefined);
  assert.equal(await Promise.race([next, turn('still waiting')]), 'still waiting');
  leave?.();
  assert.ok(await next);
  assert.equal(await gate.enter(AbortSignal.abort()), undefined);
});

test('ports: the one before if it can be had, else one of the range that nobody else has', async t => {
  const [first, last] = [21_330, 21_333];
  const holder = createServer().listen(first + 1, '127.0.0.1');
  await once(holder, 'listening');
  t.after(() => holder.close());
  const ports = new Ports({ address: '127.0.0.1' });
  const range = [first, last] as const;
  assert.equal(await ports.take(last, range), last);
  assert.equal(await ports.take(0, range), first);
  assert.equal(await ports.take(0, range), first + 2, 'the second one is in use');
  await assert.rejects(ports.take(0, range), /no port is free from 21330 to 21333: .*widen port_range/);
  ports.giveBack(first);
  assert.equal(await ports.take(9, range), first, 'one outside the range is not wanted any more');
  assert.equal(await ports.take(0, undefined), 0, 'without a range the system chooses');
  assert.equal(await ports.take(first + 1, undefined), 0);
});

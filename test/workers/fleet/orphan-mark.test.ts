import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isOrphanMark, markOf } from '../../../workers/fleet/orphans.ts';

/** The choice alone, without a signal: a fault in it would end processes of others. */
const MESH = '0123456789ab';
const dead = () => false;
const alive = () => true;

test('a worker of this mesh whose supervisor is gone is an orphan, and nothing else is', () => {
  assert.equal(isOrphanMark(`${MESH}:4711:99`, MESH, dead), true);
  assert.equal(isOrphanMark(`${MESH}:4711:99`, MESH, alive), false, 'its supervisor lives');
  assert.equal(isOrphanMark(`ba9876543210:4711:99`, MESH, dead), false, 'another mesh');
});

test('no mark, or anything but a whole one, is never an orphan, whoever is said to be gone', () => {
  for (const mark of [
    undefined,
    '',
    ':',
    '::',
    MESH,
    `${MESH}:`,
    `${MESH}:4711`,
    `${MESH}:x:99`,
    `${MESH}:0:99`,
  ]) {
    assert.equal(isOrphanMark(mark, MESH, dead), false, String(mark));
  }
  for (const mark of [undefined, '', '::', ':4711:99']) {
    assert.equal(isOrphanMark(mark, '', dead), false, `${mark} of a mesh without an id`);
  }
  for (const mark of [`${MESH}:4711:99:more`, `x${MESH}:4711:99`, `${MESH}:4711:99\n`]) {
    assert.equal(isOrphanMark(mark, MESH, dead), false, JSON.stringify(mark));
  }
});

test('a supervisor is asked for by pid and start time, as its own mark has them', () => {
  const asked: unknown[] = [];
  isOrphanMark(markOf(MESH), MESH, supervisor => {
    asked.push(supervisor.pid);
    return true;
  });
  assert.deepEqual(asked, [process.pid]);
});

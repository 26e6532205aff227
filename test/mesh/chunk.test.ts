import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Chunk } from '../../mesh/chunk.ts';

const LONG = 10_000;

describe('the memory of one read', () => {
  test('is given back when its last user is done', () => {
    const bytes = Buffer.alloc(LONG, 'x');
    const chunk = new Chunk(bytes);
    chunk.retain();
    chunk.release();
    assert.deepEqual([chunk.isGone, bytes.buffer.byteLength], [false, LONG]);
    chunk.release();
    assert.deepEqual([chunk.isGone, bytes.buffer.byteLength], [true, 0]);
  });

  test('stays where others use it too', () => {
    const whole = Buffer.alloc(2 * LONG, 'x');
    const chunk = new Chunk(whole.subarray(0, LONG));
    chunk.release();
    assert.equal(chunk.isGone, true);
    assert.equal(whole.toString(), 'x'.repeat(2 * LONG));
  });

  test('stays when it is not worth it', () => {
    const bytes = Buffer.alloc(100, 'x');
    new Chunk(bytes).release();
    assert.equal(bytes.length, 100);
  });
});

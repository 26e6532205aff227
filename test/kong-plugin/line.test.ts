import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Line } from '../../kong-plugin/line.ts';

/** `a+`: a is good; `a-`: it is not; `a?`: nothing is known of it. */
function lineOf(items: string[] = []): Line<string> {
  const options = {
    graceMs: 30,
    keyOf: (item: string) => item.slice(0, -1),
    isGood: (item: string) => item.endsWith('+'),
    isTelling: (item: string) => !item.endsWith('?'),
  };
  return new Line(options, items);
}

test('on an unbroken line all is believed at once', () => {
  const line = lineOf(['x+']);
  line.answer(['a+', 'b+'], 0);
  assert.deepEqual(line.shown, ['a+', 'b+']);
  line.answer(['b-'], 1);
  assert.deepEqual(line.shown, ['b-']);
  assert.deepEqual([line.isDoubtful, line.nextExpiry], [false, Number.POSITIVE_INFINITY]);
});

test('after an interruption what was good and is missing is kept for the grace period', () => {
  const line = lineOf(['a+', 'b+', 'c-', 'd+']);
  line.break();
  assert.equal(line.isBroken, true);
  assert.equal(line.answer(['d-', 'e+'], 10), true);
  assert.deepEqual(line.shown, ['a+', 'b+', 'd-', 'e+']);
  assert.equal(line.answer(['b+', 'd-', 'e+'], 20), false);
  assert.deepEqual(line.shown, ['a+', 'b+', 'd-', 'e+']);
  // Consul has said it again: that it is gone now is news.
  line.answer(['d-', 'e+'], 21);
  assert.deepEqual(line.shown, ['a+', 'd-', 'e+']);
  assert.equal(line.nextExpiry, 40);
  line.expire(39);
  assert.equal(line.isDoubtful, true);
  line.expire(40);
  assert.deepEqual([line.shown, line.isDoubtful], [['d-', 'e+'], false]);
});

test('what is registered anew stays good until its checks have run', () => {
  const line = lineOf(['a+', 'b-']);
  line.answer(['a?', 'b?'], 0);
  assert.deepEqual(line.shown, ['a+', 'b?']);
  line.answer(['a-', 'b+'], 1);
  assert.deepEqual(line.shown, ['a-', 'b+']);
  line.answer(['a?', 'b?'], 2);
  line.expire(32);
  assert.deepEqual(line.shown, ['a?', 'b?']);
});

test('errors again and again keep nothing for ever', () => {
  const line = lineOf(['a+']);
  for (const now of [0, 10, 20, 29]) {
    line.break();
    line.answer([], now);
    assert.deepEqual(line.shown, ['a+']);
  }
  line.expire(30);
  assert.deepEqual(line.shown, []);
  line.break();
  line.answer([], 31);
  assert.deepEqual(line.shown, []);
});

test('an answer that is only noted waits for the end of doubt', () => {
  const line = lineOf(['a+']);
  line.note([]);
  line.expire(1);
  assert.deepEqual(line.shown, ['a+']);
  line.doubt(1);
  line.expire(31);
  assert.deepEqual(line.shown, []);
});

test('the list stays the same array while it has the same items', () => {
  const line = lineOf(['a+', 'b+']);
  const { shown } = line;
  line.answer(['a+', 'b+'], 0);
  line.break();
  line.answer(['a+'], 1);
  assert.equal(line.shown, shown);
});

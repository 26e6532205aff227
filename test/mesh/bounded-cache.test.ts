import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BoundedCache } from '../../mesh/bounded-cache.ts';

test('what is used stays, what is not goes, and the bound holds', () => {
  const cache = new BoundedCache<string, number>(100);
  cache.set('used', 0);
  for (let i = 0; i < 1000; i += 1) {
    cache.set(`${i}`, i);
    assert.equal(cache.get('used'), 0);
    assert.ok(cache.size <= 100);
  }
  assert.equal(cache.get('0'), undefined);
  // Half of the bound is kept at least.
  assert.ok(
    Array.from({ length: 49 }, (_, i) => cache.get(`${999 - i}`)).every(value => value !== undefined),
  );
});

test('it counts weight: of a replaced entry once, of a deleted one no more', () => {
  const cache = new BoundedCache<string, string>(20);
  for (let i = 0; i < 100; i += 1) cache.set('same', 'again', 9);
  cache.set('other', 'kept', 1);
  assert.deepEqual([cache.get('same'), cache.get('other'), cache.size], ['again', 'kept', 2]);
  for (let i = 0; i < 100; i += 1) {
    cache.set('gone', 'soon', 9);
    cache.delete('gone');
  }
  assert.deepEqual([cache.get('same'), cache.get('gone'), cache.size], ['again', undefined, 2]);
});

test('something too heavy is not kept, and takes the place of nothing', () => {
  const cache = new BoundedCache<string, string>(20);
  cache.set('light', 'kept', 5);
  cache.set('heavy', 'first', 11);
  assert.deepEqual([cache.get('light'), cache.get('heavy')], ['kept', undefined]);
  cache.set('light', 'now heavy', 11);
  assert.equal(cache.get('light'), undefined);
});

test('an entry that was replaced never comes back from the old generation', () => {
  const cache = new BoundedCache<string, number>(4);
  cache.set('a', 1);
  cache.set('b', 1);
  cache.set('c', 1);
  cache.set('a', 2);
  cache.delete('a');
  assert.equal(cache.get('a'), undefined);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LongText, type WireText } from '../../mesh/wire-text.ts';
import { createLineReader } from '../../workers/line-reader.ts';
import { asRead } from '../as-read.ts';

function read(chunks: Uint8Array[], maxBytes = 1000) {
  const lines: string[] = [];
  const dropped: string[] = [];
  const reader = createLineReader({
    maxBytes,
    onLine: line => lines.push(line.toString()),
    onTooLong: head => dropped.push(head),
  });
  for (const chunk of chunks) reader(Buffer.from(chunk));
  return { lines, dropped };
}

test('lines come out whole, however the bytes are cut (property)', () => {
  const line = fc.string({ unit: 'grapheme', minLength: 1 }).filter(text => !text.includes('\n'));
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.nat({ max: 40 })), (lines, cuts) => {
      const bytes = Buffer.from(lines.map(text => `${text}\n`).join(''));
      const chunks: Buffer[] = [];
      let from = 0;
      for (const cut of cuts) {
        chunks.push(bytes.subarray(from, from + cut));
        from += cut;
      }
      chunks.push(bytes.subarray(from));
      assert.deepEqual(read(chunks).lines, lines);
    }),
  );
});

test('a line beyond the limit is dropped and the next one is read', () => {
  const { lines, dropped } = read([
    Buffer.from('a'.repeat(600)),
    Buffer.from('a'.repeat(600)),
    Buffer.from('a\nnext\n'),
  ]);
  assert.deepEqual(lines, ['next']);
  assert.deepEqual(dropped, ['a'.repeat(256)]);
});

test('an endless line does not grow memory', () => {
  let kept = 0;
  const reader = createLineReader({
    maxBytes: 100,
    onLine: () => assert.fail(),
    onTooLong: () => (kept += 1),
  });
  for (let i = 0; i < 1000; i += 1) reader(Buffer.alloc(100_000, 0x61));
  assert.equal(kept, 1);
});

test('empty lines are no messages', () => assert.deepEqual(read([Buffer.from('\n\na\n\n')]).lines, ['a']));

test('what was read is given back once all lines in it are done with', () => {
  const lines: WireText[] = [];
  const reader = createLineReader({ maxBytes: 100_000, onLine: line => lines.push(line), onTooLong() {} });
  const only = asRead('short\n'.repeat(1000));
  reader(only);
  assert.equal(only.length, 0, 'short lines are copies');

  const long = 'a'.repeat(20_000);
  const first = asRead(`${long}\n${long}`);
  const second = asRead(`${long}\nshort\n`);
  reader(first);
  reader(second);
  const [one, two] = lines.filter(line => line instanceof LongText);
  assert.equal(one?.toString(), long);
  one?.release();
  assert.equal(two?.toString(), long.repeat(2), 'the next line lies in it, too');
  two?.release();
  assert.deepEqual([first.length, second.length], [0, 0]);
});

test('nothing is kept of a line that is dropped', () => {
  const reader = createLineReader({ maxBytes: 10_000, onLine() {}, onTooLong() {} });
  const chunks = [1, 2, 3].map(() => Buffer.alloc(6000, 'a'));
  for (const chunk of chunks) reader(chunk);
  assert.deepEqual(
    chunks.map(chunk => chunk.length),
    [0, 0, 0],
  );
});

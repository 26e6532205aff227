import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Chunk } from '../../mesh/chunk.ts';
import { applyEdits, inAscii } from '../../mesh/json-text.ts';
import { joinLines, LongText, strictText, wireText } from '../../mesh/wire-text.ts';
import { asRead } from '../as-read.ts';

/** The text in pieces, cut at these places. */
function cutAt(text: string, cuts: readonly number[]): Buffer[] {
  const places = [0, ...cuts.map(cut => cut % (text.length + 1)).toSorted((a, b) => a - b), text.length];
  return places.slice(1).map((end, index) => Buffer.from(text.slice(places[index], end), 'latin1'));
}

const ascii = fc.string({ unit: fc.integer({ min: 0, max: 127 }).map(code => String.fromCharCode(code)) });
const cuts = fc.array(fc.nat(), { maxLength: 5 });

describe('a long text', () => {
  test('is what the pieces say together, and is sliced as a string is (property)', () => {
    fc.assert(
      fc.property(
        ascii,
        cuts,
        fc.integer({ min: -40, max: 40 }),
        fc.nat({ max: 40 }),
        (text, places, from, to) => {
          const long = new LongText(cutAt(text, places), text.length);
          assert.equal(long.toString(), text);
          assert.equal(long.slice(0, to), text.slice(0, to));
          assert.equal(long.slice(from), text.slice(from));
        },
      ),
    );
  });

  test('is edited where a string is (property)', () => {
    const put = fc.record({ length: fc.nat({ max: 5 }), json: fc.constantFrom('', '1', '"a"', '{"é":1}') });
    fc.assert(
      fc.property(ascii, cuts, fc.array(put, { maxLength: 3 }), (text, places, puts) => {
        let at = 0;
        const edits = puts.map(({ length, json }) => {
          const start = Math.min(at, text.length);
          const end = Math.min(start + length, text.length);
          at = end + 1;
          return { start, end, json };
        });
        const edited = new LongText(cutAt(text, places), text.length).edit(edits.toReversed());
        const want = inAscii(applyEdits(text, edits.toReversed()));
        assert.equal(edited.toString(), want);
        assert.equal(Buffer.concat(edited.pieces).toString(), want);
        assert.equal(edited.length, want.length);
      }),
    );
  });

  test('longer than what is kept for reading it reads the same', () => {
    const text = 'abcdefgh'.repeat(100_000);
    assert.equal(new LongText(cutAt(text, [5, 400_000]), text.length).toString(), text);
  });

  test('is put on one line as a string is, but for the number of blanks (property)', () => {
    fc.assert(
      fc.property(ascii, cuts, (text, places) => {
        const long = joinLines(new LongText(cutAt(text, places), text.length));
        assert.equal(long.toString().replace(/ +/g, ' '), joinLines(text).toString().replace(/ +/g, ' '));
        assert.equal(long.length, text.length);
      }),
    );
  });
});

describe('what was read', () => {
  const LONG = 'x'.repeat(10_000);

  test('stays bytes when it is long, and is a string when it is short', () => {
    const bytes = Buffer.from(LONG);
    const text = wireText([bytes], []);
    assert.ok(text instanceof LongText);
    assert.equal(text.pieces[0], bytes);
    assert.equal(wireText([Buffer.from('abc'), Buffer.from('d')], []), 'abcd');
    assert.equal(wireText([], []), '');
  });

  test('is a string where it is not ASCII, with characters whole that were cut in two', () => {
    const bytes = Buffer.from(`${LONG}é€`);
    assert.equal(wireText([bytes.subarray(0, 10_001), bytes.subarray(10_001)], []), `${LONG}é€`);
    assert.equal(wireText([Buffer.from(LONG), Buffer.from([0xff])], []), `${LONG}\ufffd`);
  });

  test('is not there when it must be UTF-8 and is not', () => {
    assert.equal(strictText([Buffer.from(LONG), Buffer.from([0xff])], []), undefined);
    assert.equal(strictText([Buffer.from(`${LONG}é`)], []), `${LONG}é`);
    assert.ok(strictText([Buffer.from(LONG)], []) instanceof LongText);
  });

  test('is put together where it came in many small pieces', () => {
    const pieces = Array.from(LONG, char => Buffer.from(char));
    const text = wireText(pieces, []);
    assert.ok(text instanceof LongText);
    assert.equal(text.pieces.length, 1);
    assert.equal(text.toString(), LONG);
  });
});

describe('the memory of what was read', () => {
  const bytesOf = (text: string) => {
    const bytes = asRead(text);
    return { bytes, chunk: new Chunk(bytes) };
  };

  test('is given back with the last of the users of a long text, and of those edited out of it', () => {
    const { bytes, chunk } = bytesOf('x'.repeat(10_000));
    const text = wireText([bytes], [chunk]) as LongText;
    const edited = text.edit([{ start: 0, end: 1, json: 'y' }]);
    text.retain();
    text.release();
    assert.equal(edited.toString(), `y${'x'.repeat(9999)}`);
    edited.release();
    assert.equal(bytes.length, 0);
    assert.throws(() => edited.toString(), /after its memory was given back/);
    assert.throws(() => text.slice(0, 1), /after its memory was given back/);
  });

  test('is given back at once where the text is a copy', () => {
    const accented = bytesOf('é'.repeat(10_000));
    assert.equal(wireText([accented.bytes], [accented.chunk]), 'é'.repeat(10_000));
    const broken = bytesOf(`${'x'.repeat(10_000)}`);
    broken.bytes[0] = 0xff;
    assert.equal(strictText([broken.bytes], [broken.chunk]), undefined);
    const crumbs = Array.from({ length: 10_000 }, () => bytesOf('x'));
    const text = wireText(
      crumbs.map(crumb => crumb.bytes),
      crumbs.map(crumb => crumb.chunk),
    );
    assert.equal(text.toString(), 'x'.repeat(10_000));
    for (const { chunk } of [accented, broken, ...crumbs]) assert.equal(chunk.isGone, true);
  });
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { JsonStrings, scratch } from '../../mesh/json-strings.ts';

/** By JSON.parse: the shortest beginning of the text that is a string. */
function endByParser(text: string): number {
  for (let end = 2; end <= text.length; end += 1) {
    if (text[end - 1] !== '"') continue;
    try {
      JSON.parse(text.slice(0, end));
      return end;
    } catch {
      // The quote was escaped, or something before it is wrong.
    }
  }
  return -1;
}

const ascii = fc.string({ unit: fc.integer({ min: 0, max: 127 }).map(code => String.fromCharCode(code)) });
const part = fc.oneof(
  ascii,
  fc.constantFrom('"', '\\"', '\\\\', '\\n', '\\u00e9', '\\uD83D', '\\u12g4', '\\x', '\\', 'x'.repeat(40)),
);
const tail = fc.array(part, { maxLength: 8 }).map(parts => parts.join(''));

describe('the end of a JSON string', () => {
  test('is where JSON.parse finds it, whatever stands in and behind it (property)', () => {
    fc.assert(
      fc.property(tail, text => {
        const whole = `"${text}`;
        assert.equal(new JsonStrings(Buffer.from(whole, 'latin1')).end(0), endByParser(whole));
      }),
      { numRuns: 2000 },
    );
  });

  test('is found by every character that may stand in it, and by none that may not', () => {
    for (let code = 0; code < 128; code += 1) {
      for (const text of [`"${String.fromCharCode(code)}"`, `"\\${String.fromCharCode(code)}"`]) {
        const end = new JsonStrings(Buffer.from(text, 'latin1')).end(0);
        assert.equal(end, endByParser(text), JSON.stringify(text));
      }
    }
  });

  test('is found beyond what is looked at in one go, wherever an escape is cut in two', () => {
    for (let before = scratch.length - 10; before < scratch.length + 3; before += 1) {
      for (const [middle, isString] of [
        ['\\u00e9', true],
        ['\\n', true],
        ['\\u00g9', false],
        ['\\x', false],
      ] as const) {
        const text = `"${'x'.repeat(before)}${middle}${'y'.repeat(scratch.length)}" and more`;
        const end = new JsonStrings(Buffer.from(text)).end(0);
        assert.equal(end, isString ? text.lastIndexOf('"') + 1 : -1, `${middle} after ${before}`);
      }
    }
  });

  test('is not behind the bytes, which lie where others lay before', () => {
    scratch.fill('"');
    for (const text of ['"', '"abc', '"abc\\', '"abc\\u00', `"${'x'.repeat(scratch.length - 1)}`]) {
      const bytes = scratch.subarray(0, scratch.write(text, 'latin1'));
      assert.equal(new JsonStrings(bytes).end(0), -1, text.slice(0, 20));
    }
  });

  test('is found for one string after the other, forwards and back', () => {
    const strings = ['"a"', '"\\""', `"${'b'.repeat(300_000)}"`, '"c"'];
    const text = strings.join(',');
    const reader = new JsonStrings(Buffer.from(text));
    const starts = strings.map((_, i) => strings.slice(0, i).join(',').length + (i > 0 ? 1 : 0));
    for (const i of [0, 1, 2, 3, 2, 0])
      assert.equal(reader.end(starts[i] ?? 0), (starts[i] ?? 0) + (strings[i]?.length ?? 0));
  });
});

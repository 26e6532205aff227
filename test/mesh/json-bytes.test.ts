import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type ByteMember, skim } from '../../mesh/json-bytes.ts';
import { inAscii } from '../../mesh/json-text.ts';
import { isObject } from '../../mesh/jsonrpc.ts';

const NONE = new Set<string>();

/** As JSON.parse has it: whether the bytes are an object. */
function parsesAsObject(text: string): boolean {
  try {
    return isObject(JSON.parse(text));
  } catch {
    return false;
  }
}

function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

const json = fc
  .tuple(fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()), fc.constantFrom(undefined, 1, '\t'))
  .map(([value, indent]) => inAscii(JSON.stringify(value, null, indent)));

describe('members among bytes', () => {
  test('are where JSON.parse finds them (property)', () => {
    fc.assert(
      fc.property(json, text => {
        const parsed = JSON.parse(text) as Record<string, unknown>;
        const members = skim(bytesOf(text), NONE);
        assert.deepEqual(
          members?.map(({ key, start, end }) => [key, JSON.parse(text.slice(start, end))]),
          Object.entries(parsed),
        );
      }),
    );
  });

  test('are none where JSON.parse finds none, whatever was changed (property)', () => {
    const change = fc.record({
      at: fc.nat(),
      drop: fc.nat({ max: 2 }),
      put: fc.constantFrom(
        '',
        '"',
        '\\',
        '\n',
        '\0',
        '{',
        '}',
        '[',
        ']',
        ',',
        ':',
        '-',
        '.',
        'e',
        '0',
        'u',
        'x',
      ),
    });
    let rejected = 0;
    fc.assert(
      fc.property(json, fc.array(change, { minLength: 1, maxLength: 3 }), (source, changes) => {
        let text = source;
        for (const { at, drop, put } of changes) {
          const index = at % (text.length + 1);
          text = text.slice(0, index) + put + text.slice(index + drop);
        }
        const isJson = parsesAsObject(text);
        if (!isJson) rejected += 1;
        assert.equal(skim(bytesOf(text), NONE) !== undefined, isJson, text);
      }),
      { numRuns: 2000 },
    );
    assert.ok(rejected > 500, `only ${rejected} of 2000 were broken`);
  });

  test('are found in a text that JSON has no end of (property)', () => {
    fc.assert(
      fc.property(json, fc.nat(), (text, cut) => {
        assert.equal(skim(bytesOf(text.slice(0, cut % text.length)), NONE), undefined);
      }),
    );
  });

  const numbers = ['0', '-0', '1.5', '-12.0e+3', '1E5', '1e-7', '123456789012345678901234567890'];
  const noNumbers = [
    '01',
    '-',
    '1.',
    '.5',
    '+1',
    '1e',
    '1e+',
    '0x1',
    '1_0',
    'NaN',
    '--1',
    '1.e1',
    'Infinity',
  ];
  const words = ['true', 'false', 'null'];
  const noWords = ['tru', 'True', 'nul', 'undefined', 'trueX', 'falsey'];
  const strings = ['""', '"\\u00e9\\uD83D\\n"', '"a\\/b\\\\"', `"${'x'.repeat(99)}"`];
  const noStrings = ['"\\x"', '"\\u12g4"', '"\\u12', '"\t"', '"\x01"', "'a'", '"a', `"${'x'.repeat(99)}\n"`];
  for (const value of [...numbers, ...noNumbers, ...words, ...noWords, ...strings, ...noStrings]) {
    for (const text of [`{"a":${value}}`, `{"a":[${value} , 1]}`]) {
      test(`as JSON.parse says: ${JSON.stringify(text).slice(0, 60)}`, () => {
        assert.equal(skim(bytesOf(text), NONE) !== undefined, parsesAsObject(text), text);
      });
    }
  }

  test('other values are no objects', () => {
    for (const text of [
      '',
      ' ',
      '[]',
      '1',
      '"{}"',
      'null',
      '{}{}',
      '{} x',
      '{"a":1,}',
      '{,}',
      '{"a"}',
      '{1:2}',
    ]) {
      assert.equal(skim(Buffer.from(text), NONE), undefined, text);
    }
  });

  test('have those below them that are asked for, of equal keys each its own', () => {
    const text = '{"a":{"b":{"c":1},"a":{"b":2}},"a":[{"b":1}],"b":{}}';
    const shape = (members: readonly ByteMember[] | undefined): unknown =>
      members?.map(({ key, members: below }) => [key, shape(below)]);
    assert.deepEqual(shape(skim(Buffer.from(text), new Set(['a']))), [
      [
        'a',
        [
          ['b', undefined],
          ['a', [['b', undefined]]],
        ],
      ],
      ['a', undefined],
      ['b', undefined],
    ]);
  });

  test('whoever nests beyond all reason is left to JSON.parse', () => {
    for (const [open, close] of [
      ['[', ']'],
      ['{"a":', '}'],
    ] as const) {
      const nested = (depth: number) => Buffer.from(`{"a":${open.repeat(depth)}1${close.repeat(depth)}}`);
      assert.ok(skim(nested(100), NONE));
      assert.equal(skim(nested(100_000), NONE), undefined);
      assert.equal(skim(nested(100_000), new Set(['a'])), undefined);
    }
  });
});

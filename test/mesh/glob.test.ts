import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { matchesGlob } from '../../mesh/glob.ts';

/** Few letters, so that patterns and names meet. */
const name = fc.string({ unit: fc.constantFrom('a', 'b', '_'), minLength: 1, maxLength: 8 });
const glob = fc.string({ unit: fc.constantFrom('a', 'b', '_', '*'), minLength: 1, maxLength: 6 });

describe('globs', () => {
  /** The definition of a glob, case by case; slow. */
  function reference(pattern: string, text: string): boolean {
    if (pattern === '') return text === '';
    if (pattern[0] === '*') {
      return reference(pattern.slice(1), text) || (text !== '' && reference(pattern, text.slice(1)));
    }
    return pattern[0] === text[0] && reference(pattern.slice(1), text.slice(1));
  }

  /** A text that counts how often one of its characters is looked at. */
  function countSteps(pattern: string, text: string): number {
    let steps = 0;
    const charCodeAt = (at: number) => {
      steps += 1;
      return text.charCodeAt(at);
    };
    assert.equal(
      matchesGlob(pattern, { length: text.length, charCodeAt } as unknown as string),
      matchesGlob(pattern, text),
    );
    return steps;
  }

  test('match as their definition says', () => {
    let matches = 0;
    fc.assert(
      fc.property(glob, name, (pattern, text) => {
        const expected = reference(pattern, text);
        matches += expected ? 1 : 0;
        assert.equal(matchesGlob(pattern, text), expected);
      }),
      { numRuns: 3000 },
    );
    assert.ok(matches > 300, `only ${matches} of the samples match`);
  });

  for (const [pattern, text, want] of [
    ['*', '', true],
    ['', '', true],
    ['', 'a', false],
    ['a*', 'a', true],
    ['*a', 'ba', true],
    ['a*a', 'a', false],
    ['**', 'x', true],
    ['get_*', 'GET_x', false],
    ['a.c', 'abc', false],
    ['[ab]', 'a', false],
    ['?', 'a', false],
    ['*', 'line\nend', true],
    ['a', 'a\n', false],
    ['a\\*', 'a*', false],
    ['*.*', 'ab', false],
  ] as const) {
    test(`"${pattern}" and ${JSON.stringify(text)}: ${want}`, () =>
      assert.equal(matchesGlob(pattern, text), want));
  }

  test('take steps in proportion to the text, whatever the text', () => {
    const hostile = ['*a*a*a*a*a*a*b', '*aaaaaaab', 'a*aaaa*aaaa*c', '*a', '*ab*ab*abc'];
    for (const pattern of hostile) {
      const steps = [1000, 2000, 4000].map(length => countSteps(pattern, 'a'.repeat(length)));
      const [small = 0, medium = 0, large = 0] = steps;
      assert.ok(large - medium <= 2 * (medium - small), `${pattern}: ${steps.join(', ')} steps`);
      assert.ok(large <= 4000 * pattern.length, `${pattern}: ${large} steps`);
    }
  });

  test('stop early at a star at the end and at a first letter that differs', () => {
    assert.ok(countSteps('delete_*', `delete_${'x'.repeat(1e6)}`) < 20);
    assert.ok(countSteps('get_*', 'x'.repeat(1e6)) < 20);
  });
});

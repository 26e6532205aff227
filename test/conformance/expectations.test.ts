import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { compare, loadExpectations } from './expectations.ts';

const finding = (scenario: string, check: string) => ({ scenario, check, message: 'why' });
const entry = (scenario: string, check: string) => ({ scenario, check, reason: 'known' });

describe('a report and what is expected of it', () => {
  const cases = [
    { desc: 'nothing failed, nothing allowed', failures: [], allowed: [], unexpected: [], stale: [] },
    {
      desc: 'a failure that is allowed',
      failures: [finding('a', 'x')],
      allowed: [entry('a', 'x')],
      unexpected: [],
      stale: [],
    },
    {
      desc: 'another check of the same scenario',
      failures: [finding('a', 'x'), finding('a', 'y')],
      allowed: [entry('a', 'x')],
      unexpected: [finding('a', 'y')],
      stale: [],
    },
    {
      desc: 'the same check of another scenario',
      failures: [finding('b', 'x')],
      allowed: [entry('a', 'x')],
      unexpected: [finding('b', 'x')],
      stale: ['a x'],
    },
    {
      desc: 'a star allows every check of its scenario only',
      failures: [finding('a', 'x'), finding('a', 'y'), finding('ab', 'x')],
      allowed: [entry('a', '*')],
      unexpected: [finding('ab', 'x')],
      stale: [],
    },
    {
      desc: 'an entry that nothing failed for',
      failures: [],
      allowed: [entry('a', '*')],
      unexpected: [],
      stale: ['a *'],
    },
  ];
  for (const { desc, failures, allowed, unexpected, stale } of cases) {
    test(desc, () => {
      const expected = { passed: 1, failed: failures.length, failures: allowed };
      assert.deepEqual(compare({ failures }, expected), { unexpected, stale });
    });
  }
});

describe('the file of expected failures', () => {
  const children = (failures: string) =>
    `{ legacy: { passed: 1, failed: 0, failures: [] }, modern: { passed: 1, failed: 1, failures: ${failures} } }`;
  const file = (failures: string) =>
    ['0.1', '2025-11-25', '2026-07-28'].map(suite => `'${suite}': ${children(failures)}`).join('\n');

  test('is complete', () => {
    assert.equal(loadExpectations()['2026-07-28'].modern.failed, 30);
  });

  test('an entry with a reason is read', () => {
    const { modern } = loadExpectations(file('[{ scenario: a, check: x, reason: known }]'))['0.1'];
    assert.deepEqual(modern.failures, [entry('a', 'x')]);
  });

  for (const reason of ["''", "' '"]) {
    test(`a reason of ${reason} is none`, () => {
      const text = file(`[{ scenario: a, check: x, reason: ${reason} }]`);
      assert.throws(() => loadExpectations(text), /failures\[0\]\.reason/);
    });
  }

  test('an entry without a reason is refused', () => {
    assert.throws(() => loadExpectations(file('[{ scenario: a, check: x }]')), /failures\[0\]\.reason/);
  });
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { mesh } from './helpers.ts';

describe('mesh', { concurrency: 4 }, () => {
  test('explains itself', async () => {
    for (const args of [
      ['--help'],
      ['-h'],
      ['help'],
      ['keys', '--help'],
      ['keys', 'create', '--help'],
      ['keys', 'init', '-h'],
    ]) {
      const { code, out, err } = await mesh(...args);
      assert.deepEqual([code, err], [0, ''], args.join(' '));
      assert.match(out, /Usage:/);
    }
  });

  test('without a command, or with an unknown one, ends with 2', async () => {
    for (const [args, want] of [
      [[], /Usage:/],
      [['kyes'], /unknown command "kyes"; did you mean "keys"/],
      [['constructor'], /unknown command "constructor"; `mesh --help`/],
      [['keys'], /Usage:/],
      [['keys', 'rotat'], /unknown command "rotat"; did you mean "rotate"/],
    ] as const) {
      const { code, out, err } = await mesh(...args);
      assert.deepEqual([code, out], [2, '']);
      assert.match(err, want);
    }
  });
});

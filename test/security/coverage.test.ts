import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const README = new URL('./README.md', import.meta.url);
const ROOT = new URL('../../', import.meta.url);
const NAMED = /(test\/\S+\.ts): `([^`]+)`/;

test('each attack of the table has its tests', () => {
  const rows = readFileSync(README, 'utf8')
    .split('\n')
    .filter(line => line.startsWith('| '))
    .slice(1);
  assert.ok(rows.length > 40);
  for (const row of rows) {
    const [, file = '', name = ''] = NAMED.exec(row) ?? [];
    assert.ok(existsSync(new URL(file || '.missing', ROOT)), row);
    assert.ok(readFileSync(new URL(file, ROOT), 'utf8').includes(name), `${file} has no test "${name}"`);
  }
});

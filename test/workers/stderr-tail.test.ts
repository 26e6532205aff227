import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StderrTail } from '../../workers/child/stderr-tail.ts';

function lastOf(...lines: string[]): string | undefined {
  const tail = new StderrTail();
  tail.write(Buffer.from(lines.join('\n')));
  tail.flush();
  return tail.last;
}

test('the last words are the last line', () => {
  assert.equal(lastOf(), undefined);
  assert.equal(
    lastOf('TypeError: once, and survived', 'cannot open the database', ''),
    'cannot open the database',
  );
});

test('of an error that Node prints with its version, they are the error', () => {
  const trace = [
    "Error: Cannot find module '/a/b.js'",
    '    at node:internal/modules:1:2',
    '',
    'Node.js v24.21.0',
  ];
  assert.equal(lastOf('starting', ...trace), "Error: Cannot find module '/a/b.js'");
  assert.equal(lastOf('no error at all', 'Node.js v24.21.0'), 'Node.js v24.21.0');
});

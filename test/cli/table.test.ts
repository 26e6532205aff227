import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Column, cutTo, formatTable, plain, widthOf } from '../../cli/table.ts';

interface Row {
  name: string;
  calls: number;
  error: string;
}

const COLUMNS: Column<Row>[] = [
  { title: 'NAME', cell: row => row.name, least: 4 },
  { title: 'CALLS', cell: row => String(row.calls), right: true },
  { title: 'ERROR', cell: row => row.error, least: 8 },
];
const ROWS: Row[] = [
  { name: 'one', calls: 7, error: '' },
  { name: 'another-one', calls: 1234, error: 'child exits with 3; last words: no such file' },
];

test('columns line up, numbers to the right, without spaces at the end', () => {
  assert.deepEqual(formatTable(ROWS, COLUMNS), [
    'NAME         CALLS  ERROR',
    'one              7',
    'another-one   1234  child exits with 3; last words: no such file',
  ]);
});

test('in a narrow terminal the last column gives way first, and no line is ever wider', () => {
  assert.equal(formatTable(ROWS, COLUMNS, 36)[2], 'another-one   1234  child exits wit…');
  assert.equal(formatTable(ROWS, COLUMNS, 25)[2], 'another…   1234  child e…');
  for (let width = 1; width < 60; width += 1) {
    for (const line of formatTable(ROWS, COLUMNS, width))
      assert.ok(widthOf(line) <= width, `${width}: ${line}`);
  }
});

test('where that is not enough, spare columns are left out in their order', () => {
  const [name, calls, error] = COLUMNS as [Column<Row>, Column<Row>, Column<Row>];
  const spare = [name, { ...calls, spare: 2 }, { ...error, spare: 1 }];
  const titles = (width: number) => formatTable(ROWS, spare, width)[0]?.trim().split(/ +/);
  assert.deepEqual(titles(21), ['NAME', 'CALLS', 'ERROR']);
  assert.deepEqual(titles(20), ['NAME', 'CALLS']);
  assert.deepEqual(titles(10), ['NAME']);
});

test('what servers say cannot move the cursor or hide in the line', () => {
  assert.equal(plain('\u001b[2J\u001b[31mred\u001b[0m\r\nnext\u0007\u202etxt'), 'red??next??txt');
  const [, line] = formatTable([{ name: '\u001b[H\nx', calls: 1, error: 'a\tb' }], COLUMNS);
  assert.equal(line, '?x        1  a b');
});

test('wide letters take two columns, combining marks none', () => {
  assert.equal(widthOf('日本'), 4);
  assert.equal(widthOf('e\u0301'), 1);
  assert.equal(cutTo('日本語', 4), '日…');
  const lines = formatTable(
    [
      { name: '日本', calls: 1, error: 'x' },
      { name: 'ab', calls: 1, error: 'x' },
    ],
    COLUMNS,
  );
  assert.deepEqual(
    lines.slice(1).map(line => widthOf(line)),
    [14, 14],
  );
});

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createTableFile, type SavedTable } from '../../kong-plugin/table-file.ts';
import { until } from '../until.ts';

const INSTANCE = {
  id: 'mcp-a-host-1',
  service: 'mcp-a',
  node: 'host',
  address: '10.0.0.1',
  port: 11_100,
  tags: ['mcp'],
  meta: { mcp_server: 'a', version: '1.2.3' },
  weights: { passing: 100, warning: 10 },
  status: 'passing' as const,
  reason: '',
};

function tableOf(port = 1, answeredAt = 1_700_000_000_000): SavedTable {
  const definitions = new Map<string, unknown>([
    ['a', { load_balancer: 'RANDOM', Grüße: [null, 1] }],
    ['__proto__', {}],
  ]);
  return { answeredAt, definitions, services: new Map([['mcp-a', [{ ...INSTANCE, port }]]]) };
}

function setUp(t: TestContext, folder = 'new/state') {
  const root = mkdtempSync(join(tmpdir(), 'mesh-table-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const path = join(root, folder, 'table.json');
  const lines: string[] = [];
  const create = () => {
    const file = createTableFile({ path, log: text => lines.push(text), intervalMs: 5, retryMs: 20 });
    t.after(() => file.close());
    return file;
  };
  return { root, path, lines, create };
}

test('what was saved is what is loaded, and nobody else can read it', async t => {
  const { path, lines, create } = setUp(t);
  const file = create();
  assert.equal(file.load(), undefined);
  file.save(() => tableOf());
  await until(() => existsSync(path));
  assert.deepEqual(create().load(), tableOf());
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(join(path, '..')).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(join(path, '..')), ['table.json']);
  assert.deepEqual(lines, []);
});

test('it is written when something changed, and then the newest', async t => {
  const { path, create } = setUp(t);
  const file = create();
  let reads = 0;
  const save = (table: SavedTable) =>
    file.save(() => {
      reads += 1;
      return table;
    });
  for (let port = 1; port <= 100; port += 1) save(tableOf(port));
  await until(() => existsSync(path));
  assert.equal(create().load()?.services.get('mcp-a')?.[0]?.port, 100);
  assert.equal(reads, 1);
  const { ino } = statSync(path);
  save(tableOf(100, 1_800_000_000_000));
  await until(() => reads === 2);
  await pause(20);
  assert.equal(statSync(path).ino, ino);
  save(tableOf(7));
  await until(() => statSync(path).ino !== ino);
});

test('a table that was loaded is not written again', async t => {
  const { path, create } = setUp(t);
  const [first, second] = [create(), create()];
  first.save(() => tableOf());
  await until(() => existsSync(path));
  const { ino } = statSync(path);
  second.load();
  let read = false;
  second.save(() => {
    read = true;
    return tableOf(1, 1_800_000_000_000);
  });
  await until(() => read);
  await pause(20);
  assert.equal(statSync(path).ino, ino);
});

test('a file that cannot be used is ignored with one line that says why', async t => {
  const good = { format: 'mcp-mesh-table', version: 1, answered_at: 1, definitions: [], services: [] };
  const cases: [desc: string, content: string, line: RegExp][] = [
    ['empty', '', /table\.json is not JSON/],
    ['cut', JSON.stringify(good).slice(0, -3), /table\.json is not JSON/],
    ['binary', '\u0000\u0001', /table\.json is not JSON/],
    ['foreign JSON', '{"services":[]}', /is not a table of mcp-mesh/],
    ['a list', '[]', /is not a table of mcp-mesh/],
    ['null', 'null', /is not a table of mcp-mesh/],
    [
      'of the future',
      JSON.stringify({ ...good, version: 2, services: {} }),
      /version 2 of the format.* knows 1/,
    ],
    ['no services', JSON.stringify({ ...good, services: undefined }), /is damaged at .*services/s],
    [
      'a port that is none',
      JSON.stringify({ ...good, services: [['mcp-a', [{ ...INSTANCE, port: '22; rm' }]]] }),
      /is damaged at .*services\[0\]\[1\]\[0\]\.port/s,
    ],
  ];
  for (const [desc, content, line] of cases) {
    const { path, lines, create } = setUp(t);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, content, { mode: 0o600 });
    const file = create();
    assert.equal(file.load(), undefined, desc);
    assert.equal(lines.length, 1, desc);
    assert.match(lines[0] ?? '', line, desc);
    file.save(() => tableOf());
    await until(() => readFileSync(path, 'utf8').includes(INSTANCE.id));
    assert.equal(lines.length, 1, desc);
  }
});

test('what others may have written, or what is no file, is ignored', t => {
  const prepare: [desc: string, make: (path: string) => void, line: RegExp][] = [
    ['writable by others', path => chmodSync(path, 0o666), /can be written by others; chmod 600/],
    [
      'a pipe that nobody writes into',
      path => {
        rmSync(path);
        execFileSync('mkfifo', [path]);
      },
      /is no regular file/,
    ],
    [
      'a link',
      path => {
        rmSync(path);
        symlinkSync('/etc/hosts', path);
      },
      /ELOOP/,
    ],
    [
      'a folder',
      path => {
        rmSync(path);
        mkdirSync(path);
      },
      /is no regular file/,
    ],
  ];
  for (const [desc, make, line] of prepare) {
    const { path, lines, create } = setUp(t, '.');
    writeFileSync(path, '{}', { mode: 0o600 });
    make(path);
    assert.equal(create().load(), undefined, desc);
    assert.equal(lines.length, 1, desc);
    assert.match(lines[0] ?? '', line, desc);
  }
});

test('a disk that takes nothing costs one line, and the table is saved when it does again', async t => {
  const { root, lines, create } = setUp(t);
  // A file where the folder has to be: root may write into any folder.
  writeFileSync(join(root, 'new'), '');
  const file = create();
  let reads = 0;
  file.save(() => {
    reads += 1;
    return tableOf();
  });
  await until(() => reads > 3);
  assert.equal(lines.length, 1, lines.join('\n'));
  assert.match(lines[0] ?? '', /cannot be saved.*(EEXIST|ENOTDIR).*new/);
  rmSync(join(root, 'new'));
  await until(() => lines.length > 1);
  assert.match(lines[1] ?? '', /is saved to .* again/);
  assert.deepEqual(create().load(), tableOf());
});

test('a full disk leaves the table of before and nothing else', async t => {
  const { path, lines, create } = setUp(t, '.');
  const file = create();
  file.save(() => tableOf());
  await until(() => existsSync(path));
  const limited = `
    import { createTableFile } from ${JSON.stringify(new URL('../../kong-plugin/table-file.ts', import.meta.url).href)};
    process.on('SIGXFSZ', () => {});
    const file = createTableFile({ path: ${JSON.stringify(path)}, log: text => console.log(text), intervalMs: 5 });
    const big = { answeredAt: 1, definitions: new Map([['a', 'x'.repeat(1e6)]]), services: new Map() };
    file.save(() => big);
    setTimeout(() => file.close(), 300);
  `;
  // As ENOSPC would: the file may not grow beyond 100 KB, so the write ends in the middle.
  const command = `ulimit -f 100; exec "$0" --input-type=module-typescript -e "$1"`;
  const printed = execFileSync('bash', ['-c', command, process.execPath, limited], { encoding: 'utf8' });
  assert.match(printed, /cannot be saved.*EFBIG/);
  assert.deepEqual(readdirSync(join(path, '..')), ['table.json']);
  assert.deepEqual(create().load(), tableOf());
  assert.deepEqual(lines, []);
});

test('what a killed process left half written is removed, what another one writes is not', t => {
  const { root, path, create } = setUp(t, '.');
  const [old, young, foreign] = ['0123456789ab', 'ba9876543210', 'backup'].map(part => `${path}.${part}.tmp`);
  for (const file of [old, young, foreign] as string[]) writeFileSync(file, '{');
  for (const file of [old, foreign] as string[]) utimesSync(file, 1, 1);
  assert.equal(create().load(), undefined);
  assert.deepEqual(readdirSync(root).sort(), ['table.json.ba9876543210.tmp', 'table.json.backup.tmp']);
});

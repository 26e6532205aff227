import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type AuditLog, createAuditLog } from '../../mesh/audit-log.ts';
import { until } from '../until.ts';

/** From util-linux. */
const PRLIMIT = 'prlimit';
const hasPrlimit = spawnSync(PRLIMIT, ['--version']).status === 0;

test('entries are appended as JSON lines to a file that only its owner reads', async t => {
  const { audit, path, entries } = auditLog(t, { name: 'sub/folder/audit-%p.jsonl' });
  audit.write({ time: 1, tool: 'größer' });
  audit.write({ time: 2, args: { a: [null, true] } });
  await audit.flush();
  assert.deepEqual(entries(), [
    { time: 1, tool: 'größer' },
    { time: 2, args: { a: [null, true] } },
  ]);
  assert.ok(path.endsWith(`/sub/folder/audit-${process.pid}.jsonl`));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(audit.dropped, 0);
});

test('a file that was there is continued, and a line that a killed process left unfinished is ended', async t => {
  const { audit, path } = auditLog(t);
  writeFileSync(path, '{"n":1}\n{"n":2,"unfin', { mode: 0o644 });
  audit.write({ n: 3 });
  await audit.flush();
  assert.equal(readFileSync(path, 'utf8'), '{"n":1}\n{"n":2,"unfin\n{"n":3}\n');
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('no text can end a line, forge another or steer a terminal', async t => {
  const { audit, path, entries } = auditLog(t);
  const hostile = 'a\n{"forged":1}\r\n\u2028\u2029\u0085\u001b[2J\u009b2J\u007f\u202e\ud800\0"\\';
  audit.write({ tool: hostile, [hostile]: { deep: [hostile] } });
  await audit.flush();
  const text = readFileSync(path, 'utf8');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not be there
  assert.doesNotMatch(text.slice(0, -1), /[\u0000-\u001f\u007f-\u009f\u2028-\u202e]/);
  assert.deepEqual(entries(), [{ tool: hostile, [hostile]: { deep: [hostile] } }]);
});

test('an entry that is too large is cut to a valid line that says so', async t => {
  const { audit, path, entries } = auditLog(t);
  const wide = Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`f${i}`, i]));
  for (const large of ['x'.repeat(1_000_000), '\u0001'.repeat(100_000), '\u2028'.repeat(100_000), wide])
    audit.write({ time: 7, call_id: 'c', arguments: large, status: 200 });
  audit.write({ ['k'.repeat(100_000)]: 1 });
  audit.write({ time: 8, ...wide });
  await audit.flush();
  const lines = entries();
  assert.equal(lines.length, 6);
  for (const line of lines.slice(0, 4)) {
    assert.deepEqual([line.time, line.call_id, line.status], [7, 'c', 200]);
    assert.equal(String(line.arguments).length, 1024);
    assert.ok(Number(line.cut) > 100_000);
  }
  assert.equal(lines[5]?.time, 8);
  for (const line of readFileSync(path, 'utf8').split('\n')) assert.ok(Buffer.byteLength(line) < 64 * 1024);
});

test('what JSON cannot tell is lost, counted and told of, and throws nothing', async t => {
  const { audit, entries } = auditLog(t);
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  audit.write(cycle);
  audit.write({ n: 1n });
  const toJSON = () => {
    throw new Error('no');
  };
  audit.write({ toJSON });
  audit.write({ n: 4 });
  await audit.flush();
  assert.equal(audit.dropped, 3);
  assert.equal(lostIn(entries()), 3);
  assert.deepEqual(entries().at(-1), { n: 4 });
});

test('files are set aside by size, and only so many are kept; no line is torn or lost in between', async t => {
  const { audit, path, entries } = auditLog(t, { maxBytes: 8000, keep: 3 });
  for (let n = 0; n < 1500; n += 1) {
    audit.write({ n, text: 'x'.repeat(n % 50) });
    if (n % 40 === 0) await audit.flush();
  }
  await audit.flush();
  const numbers = readdirSync(dirname(path))
    .map(file => Number(file.slice(`${basename(path)}.`.length)))
    .sort((a, b) => a - b);
  const newest = numbers.at(-1) ?? 0;
  assert.deepEqual(numbers, [0, newest - 2, newest - 1, newest]);
  const files = [...numbers.slice(1).map(n => `${path}.${n}`), path];
  for (const file of files) assert.ok(statSync(file).size <= 8000, file);
  const kept = files.flatMap(file => entries(file)).map(({ n }) => Number(n));
  assert.equal(kept.at(-1), 1499);
  assert.ok(kept.length > 250, `${kept.length}`);
  assert.deepEqual(
    kept,
    Array.from(kept, (_, i) => 1500 - kept.length + i),
  );
});

test('with none to keep, the file starts anew', async t => {
  const { audit, path, entries } = auditLog(t, { maxBytes: 4000, keep: 0 });
  for (let n = 0; n < 1000; n += 1) audit.write({ n });
  await audit.flush();
  assert.deepEqual(readdirSync(dirname(path)), [basename(path)]);
  assert.equal(entries().at(-1)?.n, 999);
});

test('two processes that share a path by mistake lose no line: one follows the other', async t => {
  const one = auditLog(t, { maxBytes: 5000, keep: 40 });
  const two = auditLog(t, { path: one.path, maxBytes: 5000, keep: 40 });
  for (let n = 0; n < 2000; n += 1) {
    one.audit.write({ from: 1, n });
    two.audit.write({ from: 2, n });
    if (n % 50 === 0) await Promise.all([one.audit.flush(), two.audit.flush()]);
  }
  await Promise.all([one.audit.flush(), two.audit.flush()]);
  const folder = dirname(one.path);
  const all = readdirSync(folder).flatMap(file => one.entries(join(folder, file)));
  assert.ok(readdirSync(folder).length > 5);
  assert.equal(new Set(all.map(({ from, n }) => `${from} ${n}`)).size, 4000);
});

test('a file that cannot be opened: entries wait, beyond the bound they are lost, and the file tells how many', async t => {
  const { audit, path, entries, log } = auditLog(t, { maxPendingBytes: 20_000 });
  mkdirSync(path);
  for (let n = 0; n < 1000; n += 1) audit.write({ n });
  await audit.flush();
  assert.ok(audit.dropped > 500 && audit.dropped < 1000, `${audit.dropped}`);
  await audit.flush();
  assert.equal(log.length, 1, log.join('\n'));
  assert.match(log[0] ?? '', /^audit log \/.* cannot be written: EISDIR/);
  rmSync(path, { recursive: true });
  await audit.flush();
  audit.write({ n: 'next' });
  await audit.flush();
  const lines = entries();
  assert.equal(lines.filter(({ event }) => event === undefined).length, 1001 - audit.dropped);
  assert.equal(lostIn(lines), audit.dropped);
  assert.equal(lines[0]?.n, 0);
  assert.equal(lines.at(-1)?.n, 'next');
  assert.match(log[1] ?? '', /is written again/);
});

test('it tries again by itself, without a new entry', async t => {
  const { audit, path } = auditLog(t);
  mkdirSync(path);
  audit.write({ n: 1 });
  await audit.flush();
  rmSync(path, { recursive: true });
  await until(() => existsSync(path));
});

test('a full disk that takes half a line gets the other half later, and says what was lost meanwhile', {
  skip: hasPrlimit ? false : 'no prlimit here, which stands for the full disk',
}, async t => {
  const { audit, path, entries, log } = auditLog(t, { maxPendingBytes: 100_000 });
  const limitFileSize = (bytes: string) =>
    assert.equal(spawnSync(PRLIMIT, ['--pid', String(process.pid), `--fsize=${bytes}:`]).status, 0);
  t.after(() => limitFileSize('unlimited'));
  limitFileSize('5000');
  for (let n = 0; n < 3000; n += 1) {
    audit.write({ n, text: 'abcdefghij' });
    if (n % 500 === 0) await audit.flush();
  }
  await audit.flush();
  assert.equal(statSync(path).size, 5000);
  assert.ok(audit.dropped > 1000);
  assert.match(log[0] ?? '', /EFBIG/);
  limitFileSize('unlimited');
  await audit.flush();
  const lines = entries();
  assert.equal(lines.filter(({ event }) => event === undefined).length + audit.dropped, 3000);
  assert.equal(lostIn(lines), audit.dropped);
});

test('/dev/full: nothing waits for it, nothing is thrown, and closing gives up', async t => {
  const { audit, log } = auditLog(t, { path: '/dev/full' });
  for (let n = 0; n < 100; n += 1) audit.write({ n });
  await audit.flush();
  assert.match(log[0] ?? '', /ENOSPC/);
  await audit.close();
  assert.equal(audit.dropped, 100);
  assert.match(log[1] ?? '', /100 entries could not be written/);
  assert.ok(statSync('/dev/full').isCharacterDevice());
});

test('a file that cannot be set aside grows on rather than lose lines', async t => {
  const longest = 'x'.repeat(255);
  const { audit, entries, log } = auditLog(t, { name: longest, maxBytes: 4000, keep: 1 });
  for (let n = 0; n < 1000; n += 1) audit.write({ n });
  await audit.flush();
  assert.equal(entries().length, 1000);
  assert.equal(log.length, 1);
  assert.match(log[0] ?? '', /cannot be set aside: ENAMETOOLONG/);
});

test('what else has such a name is left alone, and a number that is taken is passed over', async t => {
  const { audit, path } = auditLog(t, { maxBytes: 4000, keep: 1 });
  mkdirSync(join(`${path}.2`, 'folder'), { recursive: true });
  for (const end of ['20261123', '3.gz', 'x']) writeFileSync(`${path}.${end}`, '');
  for (let n = 0; n < 1000; n += 1) audit.write({ n });
  await audit.flush();
  const ends = readdirSync(dirname(path)).map(file => file.slice(basename(path).length));
  const [newest, ...more] = ends.filter(end => /^\.\d{1,3}$/.test(end) && end !== '.2');
  assert.deepEqual([more.length, Number(newest?.slice(1)) > 2], [0, true]);
  assert.deepEqual(
    ends.filter(end => end !== newest),
    ['', '.2', '.20261123', '.3.gz', '.x'],
  );
});

test('a file that logrotate moved is followed when the size is reached', async t => {
  const { audit, path, entries } = auditLog(t, { maxBytes: 4000 });
  audit.write({ n: 0 });
  await audit.flush();
  renameSync(path, `${path}-old`);
  appendFileSync(path, '');
  for (let n = 1; n < 500; n += 1) audit.write({ n });
  await audit.flush();
  assert.ok(entries(`${path}-old`).length > 1);
  assert.equal(entries().at(-1)?.n, 499);
  assert.equal(existsSync(`${path}.1`), false);
});

test('closing writes what is there, and what comes later is counted as lost', async t => {
  const { audit, entries } = auditLog(t);
  for (let n = 0; n < 5000; n += 1) audit.write({ n });
  await audit.close();
  await audit.close();
  audit.write({ n: 'late' });
  assert.equal(entries().length, 5000);
  assert.equal(audit.dropped, 1);
});

interface Options {
  name?: string;
  path?: string;
  maxBytes?: number;
  keep?: number;
  maxPendingBytes?: number;
}

function auditLog(t: TestContext, { name = 'audit.jsonl', path: given, ...options }: Options = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-audit-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const log: string[] = [];
  const audit: AuditLog = createAuditLog({
    ...options,
    path: given ?? join(folder, name),
    log: text => log.push(text),
  });
  t.after(audit.close);
  const path = given ?? join(folder, name.replace('%p', String(process.pid)));
  return { audit, path, log, entries: (file = path) => readLines(file) };
}

function readLines(path: string): Record<string, unknown>[] {
  const text = readFileSync(path, 'utf8');
  assert.ok(text === '' || text.endsWith('\n'));
  return text
    .split('\n')
    .slice(0, -1)
    .map(line => JSON.parse(line));
}

function lostIn(lines: Record<string, unknown>[]): number {
  const lost = lines.filter(({ event }) => event === 'audit_entries_lost');
  return lost.reduce((sum, line) => sum + Number(line.lost), 0);
}

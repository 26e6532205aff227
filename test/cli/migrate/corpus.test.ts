import assert from 'node:assert/strict';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { detectFormat } from '../../../cli/clients/formats.ts';
import { BOM, parseClientFile } from '../../../cli/clients/json-file.ts';
import { type Entry, fragmentOf, readEntry } from '../../../cli/migrate/entry.ts';
import { restore } from '../../../cli/migrate/roll-back.ts';
import { switchClient } from '../../../cli/migrate/switch-client.ts';
import type { MigrateOptions } from '../../../cli/migrate.ts';
import { type Case, corpus } from '../clients/corpus.ts';
import { folderFor } from '../helpers.ts';

const BASE = 'https://mesh.example';
const OPTIONS: MigrateOptions & { base: string } = {
  base: BASE,
  calls: 1,
  timeout: 1,
  acceptDifferences: true,
};

/** A copy of a case's file, in a folder of the same name: some clients are told by it. */
function copy(t: TestContext, { folder, path }: Case): string {
  const target = join(folderFor(t), relative(folder, path));
  mkdirSync(dirname(target), { recursive: true });
  copyFileSync(path, target);
  return target;
}

/** Every entry of a file that can be used. */
function entriesOf(path: string): Entry[] {
  const file = parseClientFile(readFileSync(path, 'utf8'), path);
  const { format } = detectFormat(file);
  const { servers } = format.read(file);
  return servers
    .filter(({ faults }) => faults.length === 0)
    .map(server => readEntry(path, { service: 'x', client: format, name: fragmentOf(server) }));
}

function isSwitched(path: string, entry: Entry): boolean {
  const now = readEntry(path, { service: 'x', client: entry.format, name: fragmentOf(entry.server) });
  return (
    JSON.stringify([...Object.values(now.server.setup)]).includes(`${BASE}/api`) ||
    now.text.includes('"connect"')
  );
}

const CASES = corpus().filter(({ expected, path }) => expected.error === undefined && path.endsWith('.json'));

describe('mesh migrate --switch and --rollback', () => {
  test('are tried on many files', () => {
    const texts = CASES.map(({ path }) => readFileSync(path, 'utf8'));
    assert.ok(CASES.length >= 20, String(CASES.length));
    assert.ok(texts.some(text => text.startsWith(BOM) && text.includes('\r\n')));
  });

  for (const one of CASES)
    test(`${one.name} comes back byte for byte, from each of its entries`, t => {
      for (const entry of entriesOf(copy(t, one))) {
        const { path } = entry;
        const before = readFileSync(path);
        const { backup } = switchClient(entry, 'svc', { ...OPTIONS, stdio: true });
        assert.ok(!readFileSync(path).equals(before) && isSwitched(path, entry), fragmentOf(entry.server));
        assert.ok(readFileSync(backup).equals(before));
        assert.equal(restore('svc', { config: path }).how, 'whole');
        assert.ok(readFileSync(path).equals(before), fragmentOf(entry.server));
      }
    });

  test('the entry alone comes back to its old bytes, with what was changed around it', t => {
    const one = CASES.find(({ name }) => name === 'claude-code-bom-crlf');
    assert.ok(one);
    const path = copy(t, one);
    const [entry] = entriesOf(path);
    assert.ok(entry);
    const before = readFileSync(path, 'utf8');
    switchClient(entry, 'svc', OPTIONS);
    const added = readFileSync(path, 'utf8').replace('"mcpServers"', '"later": [1],\r\n  "mcpServers"');
    writeFileSync(path, added);
    const hints = ['--entry-only brings back the entry "search" alone and leaves the rest'];
    assert.throws(
      () => restore('svc', { config: path }),
      (error: Error & { hints: string[] }) => {
        assert.match(error.message, /has been changed since the switch: later$/);
        assert.equal(error.hints[0], hints[0]);
        return true;
      },
    );
    assert.equal(readFileSync(path, 'utf8'), added);
    assert.equal(restore('svc', { config: path, entryOnly: true }).how, 'entry');
    assert.equal(
      readFileSync(path, 'utf8'),
      before.replace('"mcpServers"', '"later": [1],\r\n  "mcpServers"'),
    );
  });

  test('an entry that somebody has changed since is not overwritten', t => {
    const { path, entry } = oneEntry(t);
    switchClient(entry, 'svc', OPTIONS);
    const changed = readFileSync(path, 'utf8').replace('mesh.example', 'mesh.other');
    writeFileSync(path, changed);
    const roll = (entryOnly: boolean) => () => restore('svc', { config: path, entryOnly });
    assert.throws(roll(false), /changed since the switch: mcpServers\.a\.url$/);
    assert.throws(roll(true), /the entry "a" itself has been changed/);
    assert.equal(readFileSync(path, 'utf8'), changed);
  });

  test('links stay links, modes stay, and backups are not overwritten', t => {
    const { path, entry, folder } = oneEntry(t);
    chmodSync(path, 0o640);
    const link = join(folder, 'link.json');
    symlinkSync(path, link);
    const linked = readEntry(link, { service: 'a', client: entry.format });
    const first = switchClient(linked, 'svc', OPTIONS);
    assert.equal(restore('svc', { config: link }).how, 'whole');
    const second = switchClient(linked, 'svc', OPTIONS);
    assert.notEqual(first.backup, second.backup);
    assert.deepEqual(
      [path, first.backup, second.backup].map(file => statSync(file).mode & 0o777),
      [0o640, 0o640, 0o640],
    );
    assert.ok(
      readdirSync(folder).includes('link.json') &&
        basename(first.backup).startsWith('.mcp.json.before-mesh-'),
    );
  });

  test('a read-only file, one that changes meanwhile, and a second switch are refused, and nothing is left', t => {
    const { path, entry, folder } = oneEntry(t);
    chmodSync(path, 0o444);
    assert.throws(() => switchClient(entry, 'svc', OPTIONS), /\.mcp\.json is read-only; `chmod u\+w` it/);
    chmodSync(path, 0o644);
    const changed = readFileSync(path, 'utf8').replace('"x"', '"y"');
    writeFileSync(path, changed);
    assert.throws(
      () => switchClient(entry, 'svc', OPTIONS),
      /has been changed during the comparison; run it again/,
    );
    assert.deepEqual(readdirSync(folder), ['.mcp.json']);
    const again = () => switchClient(readEntry(path, { service: 'a' }), 'svc', OPTIONS);
    again();
    assert.throws(again, /a is of the mesh already/);
    assert.equal(restore('svc', { config: path }).how, 'whole');
    assert.equal(readFileSync(path, 'utf8'), changed);
    assert.throws(
      () => restore('svc', { config: path }),
      /no switch of svc is known; nothing in it was switched/,
    );
    assert.ok(!existsSync(`${path}.mesh-journal.json`));
  });

  test('two services of one file go back in the other order, each with its own bytes', t => {
    const { path, entry } = oneEntry(t);
    const before = readFileSync(path, 'utf8');
    switchClient(entry, 'one', OPTIONS);
    switchClient(readEntry(path, { service: 'b' }), 'two', OPTIONS);
    assert.throws(() => restore('one', { config: path }), /changed since the switch: mcpServers\.b\./);
    restore('two', { config: path });
    restore('one', { config: path });
    assert.equal(readFileSync(path, 'utf8'), before);
  });
});

test('the API key stands in no file: each client refers to it in its own way', t => {
  process.env.MESH_API_KEY = 'mk_secret-of-a-caller';
  t.after(() => delete process.env.MESH_API_KEY);
  const references: Record<string, RegExp> = {
    'claude-code-comments': /"Bearer \$\{MESH_API_KEY\}"/,
    'cursor-variables': /"Bearer \$\{env:MESH_API_KEY\}"/,
    'vscode-inputs': /"id": "mesh-api-key".+"Bearer \$\{input:mesh-api-key\}"/s,
    windsurf: /"Bearer \$\{env:MESH_API_KEY\}"/,
    cline: /"Bearer \$\{env:MESH_API_KEY\}"/,
  };
  for (const [name, reference] of Object.entries(references)) {
    const one = CASES.find(known => known.name === name);
    assert.ok(one, name);
    const [entry] = entriesOf(copy(t, one));
    assert.ok(entry, name);
    switchClient(entry, 'svc', OPTIONS);
    const text = readFileSync(entry.path, 'utf8');
    assert.match(text, reference);
    assert.ok(!text.includes('mk_secret'));
    restore('svc', { config: entry.path });
  }
  const desktop = CASES.find(({ name }) => name === 'claude-desktop-basic');
  const [entry] = desktop ? entriesOf(copy(t, desktop)) : [];
  assert.ok(entry);
  assert.throws(() => switchClient(entry, 'svc', OPTIONS), /Claude Desktop has no variables: --key-file/);
  switchClient(entry, 'svc', { ...OPTIONS, keyFile: '/run/key' });
  assert.match(readFileSync(entry.path, 'utf8'), /"MESH_API_KEY_FILE": "\/run\/key"/);
});

function oneEntry(t: TestContext): { path: string; entry: Entry; folder: string } {
  const folder = folderFor(t);
  const path = join(folder, '.mcp.json');
  writeFileSync(
    path,
    '{ "mcpServers": { "a": { "command": "x" }, "b": { "command": "z", "args": [ 1 ] } } }\n',
    { mode: 0o644 },
  );
  return { path, entry: readEntry(path, { service: 'a' }), folder };
}

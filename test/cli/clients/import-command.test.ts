import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { parseEnv } from 'node:util';
import { parse } from 'yaml';
import { loadRegistry } from '../../../mesh/registry.ts';
import { folderFor, MESH, mesh } from '../helpers.ts';

const TOKEN = 'ghp_0123456789abcdefghij0123456789abcdef';
const CONFIG = {
  mcpServers: {
    github: {
      command: 'npx',
      args: ['-y', 'server-github'],
      env: { GITHUB_TOKEN: TOKEN },
      autoApprove: ['x'],
    },
    files: { command: 'npx', args: ['-y', 'server-files', '/data'] },
  },
};
const REGISTRY = '# ours\nmcp_services:\n  - name: files # tuned\n    command: old\n    instances: 3\n';

/** A folder with a client's file and a registry, and the words of a call that imports the one into the other. */
function setUp(t: TestContext, config: unknown = CONFIG, registry?: string) {
  const folder = folderFor(t);
  const file = join(folder, '.mcp.json');
  const path = join(folder, 'registry.yaml');
  writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config, null, 2));
  if (registry !== undefined) writeFileSync(path, registry);
  const run = (...options: string[]) => mesh('import', file, '--registry', path, ...options);
  return { folder, file, path, run };
}

describe('mesh import', { concurrency: 4 }, () => {
  test('shows a plan and writes nothing', async t => {
    const { folder, file, run } = setUp(t);
    const before = readFileSync(file);
    const { code, out, err } = await run();
    assert.equal(code, 0);
    assert.match(out, /^\+ github {2}\/api\/v1\/mcp\/github {2}mcp-github in Consul$/m);
    assert.match(out, /runs npx -y server-github$/m);
    assert.match(out, /not carried over: autoApprove \(.*\.mcp\.json:12:7\)/);
    assert.match(out, /GITHUB_TOKEN: of github, its value is in the file/);
    assert.match(err, /nothing has been written: --write does/);
    assert.doesNotMatch(out + err, new RegExp(TOKEN));
    assert.deepEqual(readdirSync(folder), ['.mcp.json']);
    assert.deepEqual(readFileSync(file), before);
  });

  test('with --write makes a registry, and the secrets go where they are asked for', async t => {
    const { folder, path, run } = setUp(t);
    const envFile = join(folder, 'secrets.env');
    const { code, out, err } = await run('--write', '--secrets-file', envFile);
    assert.deepEqual([code, /is written; .*secrets\.env has the secrets/.test(err)], [0, true], err);
    assert.equal(statSync(envFile).mode & 0o777, 0o600);
    const env = parseEnv(readFileSync(envFile, 'utf8'));
    assert.deepEqual({ ...env }, { GITHUB_TOKEN: TOKEN });
    assert.match(
      readFileSync(path, 'utf8'),
      /# From \.mcp\.json \(Claude Code\), not carried over: autoApprove\n {2}- name: github/,
    );
    assert.doesNotMatch(readFileSync(path, 'utf8') + out + err, new RegExp(TOKEN));
    const [github, files] = loadRegistry(path, { env }).services;
    assert.deepEqual([github?.env, files?.args], [{ GITHUB_TOKEN: TOKEN }, ['-y', 'server-files', '/data']]);

    const again = await run('--write', '--secrets-file', join(folder, 'again.env'));
    assert.equal(again.code, 0);
    assert.match(again.err, /there is nothing to write/);
    assert.deepEqual(readdirSync(folder).toSorted(), ['.mcp.json', 'registry.yaml', 'secrets.env']);
  });

  test('never overwrites a service, unless it is told to', async t => {
    const { path, run } = setUp(t, CONFIG, REGISTRY);
    const kept = await run('--write');
    assert.equal(kept.code, 0);
    assert.match(
      kept.out,
      /^= files .*\n {4}kept as it is: the registry has another command, args for it; --replace/m,
    );
    const added = readFileSync(path, 'utf8');
    assert.ok(added.startsWith(REGISTRY));
    assert.equal((await run('--write', '--replace')).code, 0);
    assert.equal(
      readFileSync(path, 'utf8'),
      added.replace(
        'command: old\n    instances: 3\n',
        'command: npx\n    instances: 3\n    args: [-y, server-files, /data]\n',
      ),
    );
  });

  test('takes only the servers that are named', async t => {
    const { path, run } = setUp(t);
    assert.equal((await run('files', '--write')).code, 0);
    assert.deepEqual(
      loadRegistry(path, { env: {} }).services.map(({ name }) => name),
      ['files'],
    );
    const { code, err } = await run('file');
    assert.equal(code, 2);
    assert.match(err, /there is no server "file"; did you mean "files"\?; there are: github, files/);
  });

  test('writes nothing while a server has a fault, and says where', async t => {
    const config = { mcpServers: { ...CONFIG.mcpServers, odd: { command: 'x', args: '-y' } } };
    const { path, file, run } = setUp(t, config);
    const { code, err } = await run('--write');
    assert.equal(code, 1);
    assert.match(err, new RegExp(`${file}:26:15: odd\\.args: is a text; it must be a list of texts`));
    assert.match(err, /nothing has been written: mend this, or name the servers to take/);
    assert.ok(!existsSync(path));
    assert.equal((await run('--write', 'github', 'files')).code, 0);
  });

  test('makes a URL the legacy_url of a service that there is, when told to', async t => {
    const config = { mcpServers: { files: { type: 'http', url: 'https://old.example/mcp' } } };
    const { path, run } = setUp(t, config, REGISTRY);
    const { out } = await run('--write');
    assert.match(out, /it runs at https:\/\/old\.example \(http\); --replace makes that URL its legacy_url/);
    assert.equal(readFileSync(path, 'utf8'), REGISTRY);
    await run('--write', '--replace');
    const [files] = loadRegistry(path, { env: {} }).services;
    assert.deepEqual([files?.command, files?.legacy_url], ['old', 'https://old.example/mcp']);
  });

  test('with --json prints one document, without secrets', async t => {
    const { run } = setUp(t);
    const { code, out } = await run('--json');
    const plan = JSON.parse(out);
    assert.deepEqual([code, plan.client, plan.written, plan.services.length], [0, 'claude-code', false, 2]);
    assert.deepEqual(plan.services[0].entry.env, { GITHUB_TOKEN: '${GITHUB_TOKEN}' });
    assert.doesNotMatch(out, new RegExp(TOKEN));
  });

  test('says what is wrong with the command line, the file or the registry', async t => {
    const { folder, file, path, run } = setUp(t, '{ "mcpServers": { "a": { "command" "x" } } }');
    const cases = [
      [['import'], 2, /<file> is missing/],
      [['import', file, '--client', 'curser'], 2, /"curser" is not known; did you mean "cursor"\?/],
      [['import', file, '--secrets-file', 'x'], 2, /add --write/],
      [['import', join(folder, 'none.json')], 1, /none\.json: cannot be read \(ENOENT\)/],
      [['import', folder], 1, /cannot be read \(EISDIR\)/],
      [['import', file, '--client', 'codex'], 1, /\.mcp\.json:1:36: a ":" is missing/],
    ] as const;
    for (const [args, code, message] of cases) {
      const result = await mesh(...args);
      assert.deepEqual([result.code, result.out], [code, ''], args.join(' '));
      assert.match(result.err, message);
    }
    writeFileSync(file, JSON.stringify(CONFIG));
    writeFileSync(path, 'mcp_services:\n  - nam: x\n');
    const broken = await run('--write');
    assert.equal(broken.code, 1);
    assert.match(broken.err, /registry\.yaml:2: mcp_services\[0\]\.nam: unknown key; did you mean "name"\?/);
    assert.equal(readFileSync(path, 'utf8'), 'mcp_services:\n  - nam: x\n');
  });

  test('prints nothing that moves the cursor', async t => {
    const odd = '\u001b[2Ja\u202e\n+ b';
    const { run } = setUp(t, {
      mcpServers: { [odd]: { command: odd, args: [odd], [odd]: 1, env: { A: odd } } },
    });
    const { out, err } = await run();
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    assert.doesNotMatch(out + err, /[\u0000-\u0009\u000b-\u001f\u202e]/);
    assert.doesNotMatch(out, /^\+ b/m);
  });
});

describe('mesh import --write, in bad times', { concurrency: 4 }, () => {
  test('keeps a file of secrets that is there, and writes nothing', async t => {
    const { folder, path, run } = setUp(t);
    const envFile = join(folder, 'secrets.env');
    writeFileSync(envFile, 'MINE=1\n');
    const { code, err } = await run('--write', '--secrets-file', envFile);
    assert.equal(code, 1);
    assert.match(err, /secrets\.env is there already and is not overwritten/);
    assert.equal(readFileSync(envFile, 'utf8'), 'MINE=1\n');
    assert.ok(!existsSync(path));
  });

  test('next to another one leaves the registry as it is, and no secrets behind', async t => {
    const { folder, path, run } = setUp(t, CONFIG, REGISTRY);
    writeFileSync(`${path}.lock`, '');
    const { code, err } = await run('--write', '--secrets-file', join(folder, 'secrets.env'));
    assert.equal(code, 1);
    assert.match(err, /another `mesh import` is changing the file; .*remove the file/);
    assert.equal(readFileSync(path, 'utf8'), REGISTRY);
    assert.ok(!existsSync(join(folder, 'secrets.env')));
  });

  test('killed in the middle leaves the old file', async t => {
    const { folder, path } = setUp(t, CONFIG, REGISTRY);
    const script = join(folder, 'killed.ts');
    const module = join(import.meta.dirname, '../../../cli/atomic-file.ts');
    // As the command does it; the new text is half written when the signal comes.
    writeFileSync(
      script,
      `import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
const write = fs.writeFileSync;
fs.writeFileSync = (to, text) => {
  write(to, String(text).slice(0, 20));
  process.kill(process.pid, 'SIGKILL');
};
syncBuiltinESMExports();
const { editFile } = await import(${JSON.stringify(module)});
editFile(${JSON.stringify(path)}, text => text + '  - name: more\\n    command: x\\n', 'mesh import');
`,
    );
    const child = spawn(process.execPath, [script], { stdio: 'ignore' });
    const [, signal] = await once(child, 'exit');
    assert.equal(signal, 'SIGKILL');
    assert.equal(readFileSync(`${path}.lock`, 'utf8').length, 20);
    assert.equal(readFileSync(path, 'utf8'), REGISTRY);
  });

  test('killed at any moment leaves the old file or the new one', async t => {
    const servers = Array.from({ length: 300 }, (_, i) => [
      `s${i}`,
      { command: 'x', args: ['a'.repeat(200)] },
    ]);
    const { file, path, run } = setUp(t, { mcpServers: Object.fromEntries(servers) }, REGISTRY);
    const old = readFileSync(path, 'utf8');
    assert.equal((await run('--write')).code, 0);
    const made = readFileSync(path, 'utf8');
    writeFileSync(path, old);
    const child = spawn(process.execPath, [MESH, 'import', file, '--registry', path, '--write'], {
      stdio: 'ignore',
    });
    const ended = once(child, 'exit');
    const isOver = () => child.exitCode !== null || child.signalCode !== null;
    while (!isOver() && !existsSync(`${path}.lock`)) await new Promise(setImmediate);
    child.kill('SIGKILL');
    await ended;
    const text = readFileSync(path, 'utf8');
    assert.ok(text === old || text === made, `${text.length} of ${old.length} or ${made.length}`);
    // The cure that the next one tells.
    rmSync(`${path}.lock`, { force: true });
    assert.equal((await run('--write')).code, 0);
    assert.ok(readFileSync(path, 'utf8') === made);
  });

  test('reads an envFile only as far as it is a file', async t => {
    const folder = folderFor(t);
    const file = join(folder, '.cursor/mcp.json');
    mkdirSync(join(folder, '.cursor'));
    for (const envFile of ['/dev/zero', '/dev/stdin', '.']) {
      writeFileSync(file, JSON.stringify({ mcpServers: { a: { command: 'x', envFile } } }));
      const { code, out } = await mesh('import', file, '--registry', join(folder, 'r.yaml'));
      assert.equal(code, 0);
      assert.match(out, /envFile: \/.* cannot be read \(not a file\)/);
    }
  });

  test('makes what YAML reads back as it was', async t => {
    const texts = [
      'yes',
      '1e3',
      '0x1f',
      '- a',
      'a: b',
      '# x',
      '',
      ' x ',
      'a\nb',
      '*a',
      '&a',
      '!a',
      '%a',
      '@a',
      '`',
      "'",
      '"',
      '~',
      '\t',
      '😀',
    ];
    const { path, run } = setUp(t, { mcpServers: { a: { command: 'x', args: texts } } });
    assert.equal((await run('--write')).code, 0);
    assert.deepEqual(parse(readFileSync(path, 'utf8')).mcp_services[0].args, texts);
  });
});

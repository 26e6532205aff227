import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { folderFor, mesh, meshWith } from './helpers.ts';

/** Every command with its subcommands, as words. */
async function allCommands(): Promise<string[][]> {
  const { out } = await mesh('__complete', '--', '');
  const names = out.split('\n').flatMap(line => line.split('\t', 1)[0] || []);
  const own = names.filter(name => name !== 'help');
  const each = await Promise.all(
    own.map(async name => {
      const help = (await mesh(name, '--help')).out;
      const below = /^Commands:\n((?: .*\n)+)/m.exec(help)?.[1]?.matchAll(/^ {2}([a-z]+)/gm) ?? [];
      const subcommands = [...below].flatMap(([, sub]) => (sub && sub !== 'help' ? [[name, sub]] : []));
      return subcommands.length > 0 ? subcommands : [[name]];
    }),
  );
  return each.flat();
}

describe('every command', () => {
  test('has --json, tells its exit codes, and gives an unknown option to programs as an error', async () => {
    const commands = await allCommands();
    assert.ok(commands.length > 12, commands.join());
    for (const words of commands) {
      const [help, wrong] = await Promise.all([mesh(...words, '--help'), mesh(...words, '--json', '--jsn')]);
      assert.match(help.out, /^ {2}--json /m, words.join(' '));
      assert.match(help.out, /Exit codes: 0/, words.join(' '));
      assert.deepEqual([wrong.code, wrong.err], [2, ''], words.join(' '));
      assert.deepEqual(JSON.parse(wrong.out), {
        error: { code: 'usage', message: 'unknown option --jsn; did you mean "--json"?' },
      });
    }
  });

  test('that cannot be done says so in JSON on stdout, and on stderr without', async () => {
    const env = { MESH_REGISTRY: '/no/such/registry.yaml', MESH_STATE_DIR: '/no/such/folder' };
    for (const words of [
      ['status'],
      ['scale', 'a', '1'],
      ['logs', 'a'],
      ['up'],
      ['keys', 'init'],
      ['drain', 'a#0'],
    ]) {
      const [told, asked] = await Promise.all([
        meshWith({ env }, ...words, '--json'),
        meshWith({ env }, ...words),
      ]);
      assert.equal(told.code, 1, words.join(' '));
      assert.equal(JSON.parse(told.out).error.code, 'failed');
      assert.deepEqual([asked.code, asked.out], [1, '']);
      assert.match(asked.err, /^mesh: /);
    }
  });
});

test('keys as JSON: made, replaced, ended', async t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, readFileSync('config/access.yaml', 'utf8'));
  const keys = async (...args: string[]) => JSON.parse((await mesh('keys', ...args, '--json')).out);
  const made = await keys('create', 'bot', '--roles', 'local,local', '--file', path);
  assert.match(made.key, /^mk_/);
  assert.deepEqual([made.id, made.roles], ['bot', ['local']]);
  const renewed = await keys('rotate', 'bot', '--keep', '0', '--file', path);
  assert.notEqual(renewed.key, made.key);
  assert.equal(renewed.old_valid_until, null);
  assert.deepEqual(await keys('revoke', 'bot', '--file', path), { id: 'bot', revoked: true });
  assert.deepEqual(Object.keys((await keys('init')).files), [
    'gateway.env',
    'worker-everything.env',
    'worker-filesystem.env',
  ]);
  assert.match((await keys('rotate', 'identity')).steps, /MESH_IDENTITY_PUBLIC_KEYS/);
});

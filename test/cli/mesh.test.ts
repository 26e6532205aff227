import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MESH, mesh, meshWith, run } from './helpers.ts';

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

  test('help of a command comes by either way', async () => {
    const [before, after] = await Promise.all([mesh('help', 'status'), mesh('status', '--help')]);
    assert.deepEqual(before, after);
    assert.match(before.out, /Usage: mesh status \[options\]/);
  });

  test('what callers type cannot move the cursor in what is answered', async () => {
    const { code, err } = await mesh('\u001b[2Jstatus');
    assert.equal(code, 2);
    assert.ok(!err.includes('\u001b'), err);
  });

  test('a command loads its own code alone', async () => {
    const hook = `import { registerHooks } from 'node:module';
      const seen = [];
      registerHooks({ resolve: (name, context, next) => { const found = next(name, context); seen.push(found.url); return found; } });
      process.on('exit', () => process.stderr.write(JSON.stringify(seen)));`;
    const args = ['--import', `data:text/javascript,${encodeURIComponent(hook)}`, MESH, 'status', '--watch'];
    const { err } = await run(process.execPath, args);
    const seen: string[] = JSON.parse(err.slice(err.indexOf('[')));
    assert.ok(seen.some(url => url.endsWith('/cli/status.ts')));
    const others = /\/node_modules\/(?!commander)|\/cli\/(doctor|keys|why|up|start|call|completion)/;
    assert.deepEqual(
      seen.filter(url => others.test(url)),
      [],
    );
  });

  test('works as the package’s own program', async () => {
    const { code, out } = await meshWith({}, '--help');
    const linked = await run('npx', ['--no-install', 'mesh', '--help']);
    assert.deepEqual([code, linked.code, linked.out], [0, 0, out]);
  });
});

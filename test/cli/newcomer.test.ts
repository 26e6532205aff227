import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');

// npm puts the project's own Node first in the PATH of what it runs; a bare `node` may be one that knows no TypeScript.
test('no command of the README needs the Node of the machine to be ours', () => {
  const commands = readFileSync(join(ROOT, 'README.md'), 'utf8')
    .matchAll(/^```sh\n([\s\S]*?)^```$/gm)
    .flatMap(([, block = '']) => block.split('\n'))
    .toArray();
  assert.ok(commands.includes('npm start'), 'the commands were found');
  assert.deepEqual(
    commands.filter(line => /\bnode\s\S*\.ts\b/.test(line)),
    [],
  );
});

test('npx mesh runs with the project’s Node', () => {
  const own = join(ROOT, 'node_modules/.bin');
  const path = (process.env.PATH ?? '').split(delimiter).filter(folder => folder !== own);
  const { status, stdout, stderr } = spawnSync('npx', ['mesh', '--help'], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, PATH: path.join(delimiter) },
  });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^Usage: mesh /);
});

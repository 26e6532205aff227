import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { AccessPolicyError } from '../../mesh/access-policy.ts';
import { followPolicy } from '../../mesh/policy-file.ts';
import { until } from '../until.ts';

const POLL_MS = 10;

function policyOf(role: string): string {
  return `anonymous: ${role}\nroles:\n  ${role}: { allow: [{ service: "*" }] }\n`;
}

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-policy-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Follows a file; `reloads` and `errors` are what the callbacks were given. */
function follow(t: TestContext, path: string) {
  const reloads: string[] = [];
  const errors: AccessPolicyError[] = [];
  const file = followPolicy({
    path,
    pollMs: POLL_MS,
    onReload: ({ policy }) => reloads.push(policy.anonymous ?? ''),
    onError: error => errors.push(error),
  });
  t.after(file.close);
  return { file, reloads, errors };
}

test('a changed file is in force within moments', async t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, policyOf('a'));
  const { file, reloads, errors } = follow(t, path);
  assert.equal(file.policy.anonymous, 'a');
  const { version } = file.policy;
  writeFileSync(path, policyOf('b'));
  await until('reload', () => reloads.length > 0);
  assert.deepEqual([reloads, errors, file.policy.anonymous], [['b'], [], 'b']);
  assert.notEqual(file.policy.version, version);
});

test('a change of the same length, with the same time and the same inode, is seen', async t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, policyOf('a'));
  const { atime, mtime } = statSync(path);
  const { reloads } = follow(t, path);
  writeFileSync(path, policyOf('b'));
  utimesSync(path, atime, mtime);
  await until('reload', () => reloads.length > 0);
});

test('a file that an editor renames into place is followed on', async t => {
  const folder = folderFor(t);
  const path = join(folder, 'access.yaml');
  writeFileSync(path, policyOf('a'));
  const { reloads } = follow(t, path);
  for (const role of ['b', 'c']) {
    writeFileSync(join(folder, 'new'), policyOf(role));
    renameSync(join(folder, 'new'), path);
    await until(`reload of ${role}`, () => reloads.at(-1) === role);
  }
});

test('a Kubernetes volume, which swaps a symbolic link to a folder, is followed', async t => {
  const folder = folderFor(t);
  const publish = (generation: string, role: string) => {
    mkdirSync(join(folder, generation));
    writeFileSync(join(folder, generation, 'access.yaml'), policyOf(role));
    symlinkSync(generation, join(folder, '..data_tmp'));
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
  };
  publish('..2026_1', 'a');
  symlinkSync(join('..data', 'access.yaml'), join(folder, 'access.yaml'));
  const { reloads } = follow(t, join(folder, 'access.yaml'));
  publish('..2026_2', 'b');
  await until('reload', () => reloads.at(-1) === 'b');
});

test('a broken file keeps the old policy; the error names file, line and field, once', async t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, policyOf('a'));
  const { file, reloads, errors } = follow(t, path);
  const before = file.policy;
  writeFileSync(path, `${policyOf('b')}api_key: []\n`);
  await until('error', () => errors.length > 0);
  assert.equal(errors[0]?.message, `${path}:4: api_key: unknown key; did you mean "api_keys"?`);
  await delay(POLL_MS * 10);
  assert.deepEqual([errors.length, reloads], [1, []]);
  assert.equal(file.policy, before);
  assert.equal(file.error, errors[0]);

  writeFileSync(path, policyOf('b'));
  await until('recovery', () => file.policy.anonymous === 'b');
  assert.equal(file.error, undefined);
});

test('going back to the text in force ends the error without a reload', async t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, policyOf('a'));
  const { file, reloads, errors } = follow(t, path);
  writeFileSync(path, 'roles: [');
  await until('error', () => errors.length > 0);
  writeFileSync(path, policyOf('a'));
  await until('the error ends', () => file.error === undefined);
  assert.deepEqual(reloads, []);
});

test('a file that goes away keeps the old policy, and is followed when it is back', async t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, policyOf('a'));
  const { file, reloads, errors } = follow(t, path);
  rmSync(path);
  await until('error', () => errors.length > 0);
  assert.match(errors[0]?.message ?? '', /access\.yaml: cannot be read \(ENOENT\)/);
  assert.equal(file.policy.anonymous, 'a');
  writeFileSync(path, policyOf('b'));
  await until('reload', () => reloads.at(-1) === 'b');
});

test('a file that is being written counts when it is whole', async t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, policyOf('a'));
  const { reloads, errors } = follow(t, path);
  // Each beginning of this file is a policy of its own: one that shuts callers out, or a broken one.
  writeFileSync(path, '');
  for (const line of [...policyOf('b').split(/(?<=\n)/), ...Array.from({ length: 20 }, () => '#\n')]) {
    appendFileSync(path, line);
    // Longer than a look takes, shorter than two of them are apart.
    await delay(POLL_MS / 2);
  }
  await until('reload', () => reloads.length > 0);
  assert.deepEqual([reloads, errors], [['b'], []]);
});

test('nothing is called after close', async t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, policyOf('a'));
  const { file, reloads } = follow(t, path);
  file.close();
  writeFileSync(path, policyOf('b'));
  await delay(POLL_MS * 10);
  assert.deepEqual([reloads, file.policy.anonymous], [[], 'a']);
});

test('a broken file at the start is an error', t => {
  const path = join(folderFor(t), 'access.yaml');
  writeFileSync(path, 'roles: 7\n');
  assert.throws(() => followPolicy({ path }), /access\.yaml:1: roles: /);
});

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Registry } from '../../mesh/registry.ts';
import { followRegistry } from '../../mesh/registry-watch.ts';
import { until } from '../until.ts';

const POLL_MS = 10;

function registryOf(...names: string[]): string {
  return `version: 1\nmcp_services:\n${names.map(name => `  - { name: ${name}, command: "\${TOOL}" }\n`).join('')}`;
}

/** A file, and what its follower told of it. */
function follow(t: TestContext, env: Record<string, string> = { TOOL: 'x' }) {
  const folder = mkdtempSync(join(tmpdir(), 'registry-watch-'));
  const path = join(folder, 'registry.yaml');
  const write = (text: string) => writeFileSync(path, text);
  write(registryOf('a'));
  const reloads: string[][] = [];
  const errors: string[] = [];
  const namesOf = ({ services }: Registry) => services.map(({ name }) => name);
  const watch = followRegistry({
    path,
    env,
    pollMs: POLL_MS,
    onReload: registry => reloads.push(namesOf(registry)),
    onError: error => errors.push(error.message),
  });
  t.after(() => {
    watch.close();
    rmSync(folder, { recursive: true });
  });
  return { path, write, watch, reloads, errors, names: () => namesOf(watch.registry) };
}

test('a changed registry is in force, with its variables filled in', async t => {
  const { write, watch, reloads, names } = follow(t, { TOOL: '/usr/bin/tool' });
  assert.deepEqual(names(), ['a']);
  write(registryOf('a', 'b'));
  await until('reload', () => reloads.length > 0);
  assert.deepEqual([reloads, watch.error], [[['a', 'b']], undefined]);
  assert.equal(watch.registry.services[1]?.command, '/usr/bin/tool');
});

test('a broken file keeps the registry in force; the error says where it is, once, until the file is mended', async t => {
  const { path, write, watch, reloads, errors, names } = follow(t);
  write(`${registryOf('a')}    port: 7\n`);
  await until('error', () => errors.length > 0);
  await delay(POLL_MS * 10);
  assert.equal(errors.length, 1);
  assert.ok(errors[0]?.startsWith(`${path}:`), errors[0]);
  assert.deepEqual([reloads, names(), watch.error?.message], [[], ['a'], errors[0]]);
  rmSync(path);
  await until('error', () => errors.length > 1);
  assert.match(errors[1] ?? '', /cannot be read \(ENOENT\); MESH_REGISTRY names the registry file/);
  write(registryOf('a'));
  await until('end of the error', () => watch.error === undefined);
  assert.deepEqual(reloads, [], 'it is what is in force');
  write(registryOf('c'));
  await until('reload', () => reloads.length > 0);
  assert.deepEqual(names(), ['c']);
});

test('a variable that is not set is an error of the change, not of what runs', async t => {
  const { write, errors, names } = follow(t);
  write(registryOf('a').replace('TOOL', 'NO_SUCH_TOOL'));
  await until('error', () => errors.length > 0);
  assert.match(errors[0] ?? '', /the variable NO_SUCH_TOOL is not set/);
  assert.deepEqual(names(), ['a']);
});

test('a broken file at the start is an error', t => {
  const { path, write } = follow(t);
  write('mcp_services: 7\n');
  assert.throws(() => followRegistry({ path, env: {} }), /registry\.yaml:1: mcp_services/);
});

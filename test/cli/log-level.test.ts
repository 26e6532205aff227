import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Mesh, startMesh } from '../e2e/mesh-process.ts';
import { scripted, until } from '../workers/fleet/helpers.ts';
import { folderFor, meshWith } from './helpers.ts';

const WORDS = 'about to crash: secret-in-stderr';

interface Line {
  service?: string;
  msg?: string;
  level: number;
  pid: number;
  stderr?: unknown;
}

/** What workers logged, of all that the mesh printed. */
function linesOf(mesh: Mesh): Line[] {
  const lines = mesh.output().split('\n').slice(0, -1);
  return lines.filter(line => line.startsWith('{"level"')).map(line => JSON.parse(line) as Line);
}

test('the level of running workers is changed, of a service’s or of one, and what they log with it', async t => {
  const folder = folderFor(t);
  const registry = join(folder, 'registry.yaml');
  const services = [scripted('alpha', { instances: 2 }), scripted('beta')];
  // JSON is YAML.
  writeFileSync(registry, JSON.stringify({ version: 1, mcp_services: services }));
  const env = { MESH_REGISTRY: registry, MESH_STATE_DIR: folder };
  const running = await startMesh(env);
  t.after(() => running.stop());
  const level = (...args: string[]) => meshWith({ env }, 'log-level', ...args);
  const crash = async (service: string) =>
    (await fetch(`${running.url}/api/v1/mcp/${service}/tools/crash`, { method: 'POST' })).text();
  /** The server's own words are a line of their own at `debug` only. */
  const heard = () => linesOf(running).filter(({ stderr }) => stderr === WORDS);
  const changes = () => linesOf(running).filter(({ msg }) => msg === 'log level changed');
  const ends = (service: string) =>
    linesOf(running).filter(line => line.service === service && line.msg?.startsWith('server ended')).length;

  await crash('beta');
  await until('the end of the server', () => ends('beta') === 1);
  assert.deepEqual([heard().length, changes().length], [0, 0]);

  const all = await level('alpha', 'info');
  assert.deepEqual(all, { code: 0, out: 'alpha#0 logs at info\nalpha#1 logs at info\n', err: '' });
  await until('a line of both', () => new Set(changes().map(({ pid }) => pid)).size === 2);

  const one = await level('beta#0', 'debug', '--json');
  assert.deepEqual([one.code, JSON.parse(one.out)], [0, { 'beta#0': 'debug' }]);
  // While it is started again, calls are refused.
  await until('another crash', async () => (await crash('beta')).includes('child_crashed'));
  await until('its words', () => heard().length > 0);
  assert.ok(heard().every(({ service }) => service === 'beta'));

  const [loud, nobody] = await Promise.all([level('beta', 'loud'), level('bete', 'debug')]);
  assert.deepEqual([loud.code, nobody.code], [2, 2]);
  assert.match(loud.err, /"loud" is invalid.*trace, debug, info/);
  assert.match(nobody.err, /no service or instance "bete"; did you mean "beta"/);
});

import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { connectControl } from '../../workers/fleet/control-client.ts';
import { controlPath } from '../../workers/fleet/control-path.ts';
import { scripted, until } from '../workers/fleet/helpers.ts';
import { createSite } from '../workers/fleet/supervisor.ts';
import { mesh } from './helpers.ts';

test('a fleet is seen, scaled, restarted, drained and diagnosed', async t => {
  const site = await createSite(t, [scripted('alpha'), scripted('broken', { env: { MODE: 'die' } })]);
  const places = { registryPath: site.registryPath, stateDir: dirname(site.registryPath) };
  process.env.MESH_REGISTRY = places.registryPath;
  process.env.MESH_STATE_DIR = places.stateDir;
  t.after(() => {
    delete process.env.MESH_REGISTRY;
    delete process.env.MESH_STATE_DIR;
  });
  const absent = await mesh('status');
  assert.deepEqual([absent.code, absent.out], [1, '']);
  assert.match(absent.err, /no supervisor is running for this registry .*mesh up/);
  const socket = controlPath(places);
  await site.start({ socket });
  const control = connectControl(socket);
  const rowOf = async (slot: string) => (await control.status()).instances.find(row => row.slot === slot);
  await until('alpha', async () => (await control.status()).services[0]?.ready === 1);
  await until('the end of broken', async () =>
    (await rowOf('broken#0'))?.last_error?.includes('exits with 3'),
  );

  const [status, json, watch, wrong, misspelt, unknown] = await Promise.all([
    mesh('status'),
    mesh('status', '--json'),
    mesh('status', '--watch'),
    mesh('scale', 'alpha', 'many'),
    mesh('scale', 'alhpa', '1'),
    mesh('restart', 'alpha#00'),
  ]);
  assert.equal(status.code, 1, 'broken is not ready');
  assert.match(status.out, /^alpha +mcp-alpha-\S+ +127\.0\.0\.1:\d+ +ready +legacy +[01] +0 /m);
  assert.match(status.out, /^! broken: 0 of 1 instances ready; .*exits with 3/m);
  assert.equal(JSON.parse(json.out).services.length, 2);
  assert.deepEqual([watch.code, watch.out], [2, ''], 'no terminal');
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /"many" is no number of instances/);
  assert.equal(misspelt.code, 1);
  assert.match(misspelt.err, /no service "alhpa"; did you mean "alpha"/);
  assert.equal(unknown.code, 2);
  assert.match(unknown.err, /no service or instance "alpha#00"; did you mean "alpha#0"/);

  const scaled = await mesh('scale', 'alpha', '2');
  assert.deepEqual(scaled, { code: 0, out: 'alpha: 2 of 2 instances ready\n', err: '' });

  const before = await rowOf('alpha#0');
  const [again, gone] = await Promise.all([mesh('restart', 'alpha#0'), mesh('drain', 'alpha')]);
  assert.deepEqual([again.code, again.err], [0, '']);
  assert.match(again.out, /is ready\n$/);
  assert.notEqual((await rowOf('alpha#0'))?.pid, before?.pid, 'it is another worker');
  assert.equal(gone.code, 2);
  assert.match(gone.err, /"alpha" is a service: name one of mcp-alpha-/);

  const { id } = (await rowOf('alpha#1')) ?? {};
  const drained = await mesh('drain', String(id));
  assert.deepEqual([drained.code, drained.err], [0, '']);
  assert.match(drained.out, /is drained; `mesh restart alpha#1` brings it back/);
  assert.equal((await rowOf('alpha#1'))?.state, 'drained');

  const [logs, sick, well] = await Promise.all([
    mesh('logs', 'broken'),
    mesh('doctor', 'broken'),
    mesh('doctor', 'alpha', '--gateway', 'http://127.0.0.1:2'),
  ]);
  assert.equal(logs.code, 0);
  assert.match(logs.out, /cannot open the database/);
  assert.equal(sick.code, 1);
  assert.match(
    sick.out,
    /^ {2}command +ok: .*\n {2}server +broken: child exits with 3.*\n +mend it: .*\n {2}worker +skipped: server comes first$/m,
  );
  assert.equal(well.code, 1);
  assert.match(
    well.out,
    /^alpha\n {2}registry +ok: .*\n {2}command +ok: .*\n {2}server +ok: 1 run, era legacy\n {2}worker +ok: 127.*\n {2}consul +ok: mcp-alpha: 127.*\n {2}reachable +ok: .*\n {2}gateway +broken: .*nobody listens there\n +mend it: .*\n {2}call +skipped: gateway comes first\n$/,
  );
});

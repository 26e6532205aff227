import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createConsul } from '../../../mesh/consul.ts';
import { scripted, startTestFleet, until } from './helpers.ts';

test('another share of the traffic is in Consul at once, before the first worker has ended', async t => {
  const mesh = await startTestFleet(t, [scripted('one', { traffic_percent: 50 })], {
    // A worker that is told to stop serves on for so long.
    worker: { MESH_DRAIN_IDLE_MS: '60000' },
  });
  const [before] = await mesh.ready('one', 1);
  const consul = createConsul({ url: mesh.consulUrl });
  mesh.write([scripted('one', { traffic_percent: 0 })]);
  await until('the new share', async () => {
    const definition = (await consul.getDefinition('one')) as { traffic_percent?: number };
    return definition.traffic_percent === 0;
  });
  assert.ok(before?.pid);
  process.kill(before.pid, 0);
  process.kill(before.pid, 'SIGKILL');
});

test('a service that the registry has no more is forgotten, once its instances are gone', async t => {
  const mesh = await startTestFleet(t, [scripted('stays'), scripted('goes')]);
  await Promise.all(['stays', 'goes'].map(name => mesh.ready(name, 1)));
  const consul = createConsul({ url: mesh.consulUrl });
  t.after(() => consul.close());
  assert.ok(await consul.getDefinition('goes'));
  mesh.write([scripted('stays')]);
  await until('its end', async () => (await consul.getDefinition('goes')) === undefined);
  assert.ok(await consul.getDefinition('stays'));
  mesh.write([scripted('stays'), scripted('goes')]);
  await mesh.ready('goes', 1);
  await until('its return', async () => (await consul.getDefinition('goes')) !== undefined);
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { isAlive } from '../../e2e/mesh-process.ts';
import { scripted, until } from './helpers.ts';
import { createSite, processesOf } from './supervisor.ts';

test('kill -9 of the supervisor leaves nothing, though its workers are busy', async t => {
  const site = await createSite(t, [scripted('idle', { instances: 2 }), scripted('busy')]);
  const supervisor = await site.start();
  assert.equal(supervisor.said, 'started');
  const pids = await processesOf(site, supervisor, 3);
  assert.equal(pids.length, 6, 'three workers and their servers');
  const { instances } = await site.control.status();
  const busy = instances.find(({ service }) => service === 'busy');
  const calls = ['burn', 'silent', 'slow'].map(command =>
    fetch(`http://${busy?.address}/execute`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ command, params: { ms: 60_000 } }),
    }).catch(() => undefined),
  );
  await until('calls inside', async () => {
    const { instances: rows } = await site.control.status();
    return rows.some(({ in_flight }) => in_flight === 3);
  });
  supervisor.child.kill('SIGKILL');
  await once(supervisor.child, 'exit');
  await until('end of all processes', () => pids.every(pid => !isAlive(pid)));
  await Promise.all(calls);
});

test('the next supervisor ends what could not end itself, and nothing of another mesh or of one that lives', async t => {
  const site = await createSite(t, [scripted('one')]);
  const other = await createSite(t, [scripted('one')]);
  const first = await site.start();
  const otherSupervisor = await other.start();
  const pids = await processesOf(site, first, 1);
  const others = await processesOf(other, otherSupervisor, 1);
  const { instances } = await site.control.status();
  const worker = instances[0]?.pid ?? 0;
  process.kill(worker, 'SIGSTOP');
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  assert.ok(isAlive(worker), 'it cannot notice');

  const second = await site.start();
  assert.equal(second.said, 'started');
  assert.deepEqual(pids.filter(isAlive), []);
  await processesOf(site, second, 1);

  // Of the same registry, at a socket of its own: what the one that lives has is not touched.
  const alive = await processesOf(site, second, 1);
  const third = await site.start({ socket: `${site.socket}2` });
  assert.equal(third.said, 'started');
  assert.deepEqual(
    [...alive, ...others].filter(pid => !isAlive(pid)),
    [],
  );
});

test('a worker and its supervisor killed in the same instant: the next start ends the server', async t => {
  const site = await createSite(t, [scripted('one')]);
  const first = await site.start();
  const pids = await processesOf(site, first, 1);
  const { instances } = await site.control.status();
  process.kill(first.pid, 'SIGSTOP');
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  process.kill(instances[0]?.pid ?? 0, 'SIGKILL');
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  const second = await site.start();
  assert.equal(second.said, 'started');
  await until('end of what was left', () => pids.every(pid => !isAlive(pid)));
});

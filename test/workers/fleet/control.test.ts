import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ControlError, connectControl } from '../../../workers/fleet/control-client.ts';
import { controlPath } from '../../../workers/fleet/control-path.ts';
import { type Controlled, startControl } from '../../../workers/fleet/control-server.ts';
import { FleetError } from '../../../workers/fleet/fleet-error.ts';
import type { FleetStatus } from '../../../workers/fleet/status.ts';
import { scripted } from './helpers.ts';
import { createSite, processesOf } from './supervisor.ts';

const STATUS: FleetStatus = {
  pid: 4711,
  started_at: '2026-01-01T00:00:00.000Z',
  registry: { path: 'r.yaml', error: null },
  services: [],
  instances: [],
};

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'fleet-control-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A fleet that writes down what it is asked for. */
function recorder(): { fleet: Controlled; orders: unknown[] } {
  const orders: unknown[] = [];
  const note = async (...order: unknown[]) => {
    orders.push(order);
    if (order.includes('nobody')) throw new FleetError('no service "nobody"');
    if (order.includes('slow')) await new Promise(() => {});
  };
  const fleet: Controlled = {
    status: () => STATUS,
    scale: (service, count) => note('scale', service, count),
    restart: target => note('restart', ...Object.entries(target).flat()),
    drain: instance => note('drain', instance),
    logs: async target => ({ 'a#0': [JSON.stringify(target)] }),
    setLogLevel: async (target, level) => ({ 'a#0': JSON.stringify({ target, level }) }),
  };
  return { fleet, orders };
}

async function startRecorder(t: TestContext, path = join(folderFor(t), 'fleet.sock')) {
  const server = await startControl(path);
  t.after(() => server.close());
  const { fleet, orders } = recorder();
  server.serve(fleet);
  return { path, orders, client: connectControl(path) };
}

test('orders reach the fleet; each answer is how it is then', async t => {
  const { client, orders, path } = await startRecorder(t);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(await client.status(), STATUS);
  assert.deepEqual(await client.scale('a', 3), STATUS);
  await client.restart({ service: 'a' });
  await client.restart({ instance: 'mcp-a-h-1' });
  await client.drain('mcp-a-h-1');
  assert.deepEqual(await client.scale('slow', 1, { wait: false }), STATUS, 'is not waited for');
  assert.deepEqual(orders, [
    ['scale', 'a', 3],
    ['restart', 'service', 'a'],
    ['restart', 'instance', 'mcp-a-h-1'],
    ['drain', 'mcp-a-h-1'],
    ['scale', 'slow', 1],
  ]);
  assert.deepEqual(await client.logs({ service: 'a' }), { 'a#0': ['{"service":"a"}'] });
  assert.deepEqual(await client.setLogLevel({ instance: 'a#0' }, 'debug'), {
    'a#0': '{"target":{"instance":"a#0"},"level":"debug"}',
  });
});

test('what cannot be done is refused with the reason', async t => {
  const { client, path } = await startRecorder(t);
  await assert.rejects(client.scale('nobody', 1), { name: 'ControlError', message: 'no service "nobody"' });
  await assert.rejects(client.scale('nobody', 1, { wait: false }), /no service "nobody"/);
  const raw = (method: string, url: string, body?: string) =>
    new Promise<string>((resolve, reject) => {
      const call = request({ socketPath: path, method, path: url }, async response => {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve(`${response.statusCode} ${text}`);
      });
      call.on('error', reject);
      call.end(body);
    });
  assert.match(await raw('POST', '/scale', '{"service":"a"}'), /^400 .*scale needs/);
  assert.match(await raw('POST', '/scale', 'not json'), /^400 .*not a JSON object/);
  assert.match(await raw('POST', '/restart', '{}'), /^400 .*name a service or an instance/);
  assert.match(await raw('POST', '/log-level', '{"service":"a","level":"loud"}'), /^400 .*trace \| debug/);
  assert.match(
    await raw('DELETE', '/everything'),
    /^400 .*there is no DELETE \/everything, only GET \/status/,
  );
  assert.match(await raw('POST', '/scale', `"${'x'.repeat(100_000)}"`), /^400 .*at most 65536 bytes/);
});

test('without a supervisor the client says how to start one', async t => {
  const path = join(folderFor(t), 'fleet.sock');
  await assert.rejects(connectControl(path).status(), (error: ControlError) => {
    assert.match(error.message, /no supervisor is running for this registry .*mesh up/);
    return error.absent;
  });
});

test('a second supervisor is refused while the first lives, and takes over when it was killed', async t => {
  const site = await createSite(t, [scripted('one')]);
  const first = await site.start();
  const second = await site.start();
  assert.match(second.said, new RegExp(`^refused: already running with pid ${first.pid} for this registry`));
  await once(second.child, 'exit');
  await processesOf(site, first, 1);
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  assert.ok(statSync(site.socket).isSocket(), 'it is left behind');
  const third = await site.start();
  assert.equal(third.said, 'started');
  assert.equal((await site.control.status()).pid, third.pid);
});

test('one that does not answer is running all the same', async t => {
  const site = await createSite(t, []);
  const first = await site.start();
  process.kill(first.pid, 'SIGSTOP');
  const second = await site.start();
  assert.match(
    second.said,
    /^refused: already running for this registry .*does not answer: is it stopped, or stuck/,
  );
  process.kill(first.pid, 'SIGCONT');
});

test('nothing but a dead socket is removed, and nothing is put where others may write', async t => {
  const folder = folderFor(t);
  const file = join(folder, 'a-file');
  writeFileSync(file, 'precious');
  await assert.rejects(startControl(file), /a-file is in the way: it is no socket/);
  const open = join(folder, 'open');
  mkdirSync(open);
  chmodSync(open, 0o777);
  await assert.rejects(
    startControl(join(open, 'fleet.sock')),
    /can be written by others: set MESH_STATE_DIR/,
  );
  await assert.rejects(startControl(join(folder, 'x'.repeat(120))), /too long for a socket .*MESH_STATE_DIR/);
});

test('all who name a registry file find the same socket, and those of others another one', t => {
  const folder = folderFor(t);
  const registryPath = join(folder, 'registry.yaml');
  writeFileSync(registryPath, '');
  mkdirSync(join(folder, 'sub'));
  const places = { stateDir: '/state' };
  const path = controlPath({ registryPath, ...places });
  assert.match(path, /^\/state\/mcp-mesh-[0-9a-f]{12}\.sock$/);
  assert.equal(controlPath({ registryPath: `${folder}/sub/../registry.yaml`, ...places }), path);
  assert.notEqual(controlPath({ registryPath: `${folder}/other.yaml`, ...places }), path);
  assert.match(controlPath({ registryPath, runtimeDir: '/run/user/7' }), /^\/run\/user\/7\/mcp-mesh-/);
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { startConsul } from '../../../kong/dev/consul.ts';
import { collectCleanUps, type FleetHarness, startFleetHarness } from '../../e2e/fleet-harness.ts';
import { isAlive } from '../../e2e/mesh-process.ts';
import { startTcpProxy, type TcpProxy } from '../../tcp-proxy.ts';
import { until } from '../../until.ts';
import { type StdioClient, startMeshClient } from './stdio-client.ts';

describe('mesh connect, when things break', () => {
  const cleanUps = collectCleanUps();
  let harness: FleetHarness;
  let proxy: TcpProxy;
  before(async () => {
    const consul = await startConsul();
    cleanUps.add(() => consul.close());
    harness = await startFleetHarness(cleanUps.add, {
      consulUrl: consul.url,
      services: [
        { name: 'shared', workers: 1 },
        { name: 'own', workers: 1, registry: { isolation: 'session' } },
      ],
    });
    proxy = await startTcpProxy(Number(new URL(harness.urls[0] ?? '').port));
    cleanUps.add(() => proxy.close());
  });
  after(() => cleanUps.run());

  const connect = (t: Parameters<typeof startMeshClient>[0], service: string, ...more: string[]) =>
    startMeshClient(t, ['connect', service, '--url', `http://127.0.0.1:${proxy.port}`, ...more]);
  const call = (client: StdioClient, id: number, name: string, args: object = {}) =>
    client.ask(id, 'tools/call', { name, arguments: args });

  test('a session whose server is gone is begun again, and the client does not notice', async t => {
    const client = connect(t, 'own');
    await client.greet();
    const first = await call(client, 1, 'pid');
    const [worker] = harness.workers('own');
    assert.ok(worker);
    await worker.kill();
    await worker.restart();
    await harness.healthy('own', 1);
    const second = await call(client, 2, 'pid');
    assert.ok(second.result, JSON.stringify([first, second]));
    assert.notEqual(first.result.content[0].text, second.result.content[0].text);
    // Its questions reach the client on the new session's streams.
    const asking = call(client, 3, 'ask');
    const { id } = await client.hears('sampling/createMessage');
    client.send({ jsonrpc: '2.0', id, result: { answer: 'from the client' } });
    assert.deepEqual(JSON.parse((await asking).result.content[0].text), { answer: 'from the client' });
    assert.match(client.errors(), /the mesh had lost the session: it was begun again/);
    assert.equal(await client.end(), 0);
  });

  test('a gateway that is away is waited for, and a call that never got there is sent once', async t => {
    const client = connect(t, 'shared');
    await client.greet();
    await proxy.set('refuse');
    const waiting = call(client, 1, 'mark', { id: 'waited', ms: 1 });
    const listing = client.ask(2, 'tools/list');
    await until('a refused connection', () => proxy.hits() > 0 || client.child.exitCode === null);
    await proxy.set('pass');
    assert.equal((await waiting).result.content[0].text, 'waited');
    assert.ok((await listing).result.tools.length > 0);
    assert.equal(harness.executions().get('waited')?.length, 1);
  });

  test('one that stays away fails what waits, after a bounded time, as not delivered', async t => {
    const client = connect(t, 'shared', '--wait', '0.5');
    await client.greet();
    await proxy.set('refuse');
    const { error } = await call(client, 1, 'echo', { text: 'hi' });
    await proxy.set('pass');
    assert.equal(error.data.delivered, 'no');
    assert.match(error.message, /nothing listens at/);
    const again = await call(client, 2, 'echo', { text: 'hi' });
    assert.equal(again.result.content[0].text, 'hi');
  });

  test('a call whose answer is lost fails as perhaps delivered, and is not sent again', async t => {
    const client = connect(t, 'shared');
    await client.greet();
    await proxy.set('cut');
    const { error } = await call(client, 1, 'mark', { id: 'once', ms: 1 });
    await proxy.set('pass');
    assert.equal(error.data.delivered, 'unknown');
    assert.equal(harness.executions().get('once')?.length, 1);
  });

  test('a list whose answer is lost is asked for again', async t => {
    const client = connect(t, 'shared');
    await client.greet();
    await proxy.set('cut');
    const before = proxy.hits();
    const listing = client.ask(1, 'tools/list');
    await until('a lost answer', () => proxy.hits() > before);
    await proxy.set('pass');
    assert.ok((await listing).result.tools.length > 0);
  });

  test('a cancel reaches the server, and the call has no answer', async t => {
    const client = connect(t, 'own');
    await client.greet();
    client.send({ jsonrpc: '2.0', id: 'slow', method: 'tools/call', params: { name: 'silent' } });
    await call(client, 1, 'echo', { text: 'after' });
    client.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'slow' } });
    await until('the cancel', async () => {
      const id = client.lines.length + 100;
      const { result } = await client.ask(id, 'test/cancelled');
      return result?.cancelled.length > 0;
    });
    assert.deepEqual(
      client.lines.filter(line => line.includes('"slow"')),
      [],
    );
  });

  test('it ends with its client, by the end of stdin or a signal, and whatever is under way', async t => {
    const silent = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'silent' } };
    const ended = connect(t, 'shared');
    await ended.greet();
    ended.send(silent);
    assert.equal(await ended.end(), 0);
    const stopped = connect(t, 'shared');
    await stopped.greet();
    stopped.send(silent);
    const exit = once(stopped.child, 'exit');
    stopped.child.kill('SIGTERM');
    await exit;
    assert.ok(!isAlive(stopped.child.pid ?? 0));
    assert.deepEqual([stopped.child.exitCode, stopped.child.signalCode], [0, null]);
  });

  test('it ends a session of its own at the mesh, server and all', async t => {
    const client = connect(t, 'own');
    await client.greet();
    const pid = Number((await call(client, 1, 'pid')).result.content[0].text);
    assert.ok(isAlive(pid));
    assert.equal(await client.end(), 0);
    await until('end of its server', () => !isAlive(pid));
  });
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { META } from '../../../mesh/eras.ts';
import {
  connectLegacy,
  connectModern,
  MODERN_META,
  modernHeaders,
  openGet,
  textOf,
  untilIdle,
} from './helpers.ts';
import { assertServes, GROWTH_MB, growthDuring, startWorkerProcess } from './worker-process.ts';

describe('memory stays bounded', () => {
  test('a server that no longer reads is not fed for ever', { timeout: 60_000 }, async t => {
    const worker = await startWorkerProcess(t, { timeout_ms: 100 });
    await assertServes(worker);
    const client = connectModern(worker.url);
    assert.equal(textOf(await client.call(1, 'deaf')), 'deaf from now on');
    const text = 'x'.repeat(4 << 20);
    const growth = await growthDuring(worker, async () => {
      for (let round = 0; round < 30; round += 1) {
        // Nobody answers, unless the worker has put another server in its place.
        await Promise.all([1, 2, 3, 4].map(id => client.call(id, 'echo', { text })));
      }
    });
    // Four requests of this size at once cost up to half of it by themselves.
    assert.ok(
      growth < 2 * GROWTH_MB,
      `480 MB for a server that does not read: memory grew by ${Math.round(growth)} MB`,
    );
    worker.assertSound();
  });

  test('a client that does not read its own flood of progress', { timeout: 60_000 }, async t => {
    const worker = await startWorkerProcess(t);
    await assertServes(worker);
    const args = { method: 'notifications/progress', count: 100_000, bytes: 3000, own: true };
    const growth = await growthDuring(worker, async () => {
      await openAndIgnore(t, worker.url, modernCall('flood', args));
      await floodIsOver(worker.url);
    });
    assert.ok(growth < GROWTH_MB, `300 MB that nobody reads: memory grew by ${Math.round(growth)} MB`);
    await assertServes(worker);
  });

  test('a client that does not read the changes that it listens for', { timeout: 60_000 }, async t => {
    const worker = await startWorkerProcess(t);
    await assertServes(worker);
    const params = { notifications: { toolsListChanged: true }, _meta: MODERN_META };
    const body = { jsonrpc: '2.0', id: 1, method: 'subscriptions/listen', params };
    await openAndIgnore(t, worker.url, { headers: modernHeaders('subscriptions/listen'), body });
    const reader = await connectLegacy(worker.url);
    let heard = 0;
    const stream = await openGet(reader, () => {
      heard += 1;
    });
    t.after(() => stream.close());
    const count = 60_000;
    const growth = await growthDuring(worker, async () => {
      const args = { method: 'notifications/tools/list_changed', count, bytes: 5000 };
      assert.equal(textOf(await reader.call(1, 'flood', args)), 'flooded');
    });
    assert.ok(growth < GROWTH_MB, `300 MB that nobody reads: memory grew by ${Math.round(growth)} MB`);
    assert.ok(heard > 0);
    await assertServes(worker);
  });
});

interface Posted {
  headers: Record<string, string>;
  body: object;
}

function modernCall(name: string, args: object): Posted {
  const _meta = { ...MODERN_META, progressToken: 'own', [META.logLevel]: 'debug' };
  return {
    headers: modernHeaders('tools/call', name),
    body: { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args, _meta } },
  };
}

/** A client that sends its request, sees that the answer begins, and reads no further. */
async function openAndIgnore(t: TestContext, url: string, { headers, body }: Posted): Promise<Socket> {
  const { port, host } = new URL(url);
  const text = JSON.stringify(body);
  const lines = Object.entries({
    host,
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    ...headers,
    'content-length': String(Buffer.byteLength(text)),
  });
  const socket = connect(Number(port), '127.0.0.1');
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  socket.write(
    `POST /mcp HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}`).join('\r\n')}\r\n\r\n${text}`,
  );
  await once(socket, 'readable');
  return socket;
}

/** Whatever the flood's own call came to, the server has said everything: another tool is answered behind it. */
async function floodIsOver(url: string): Promise<void> {
  assert.equal(textOf(await connectModern(url).call(2, 'echo', { text: 'behind' })), 'behind');
  await untilIdle(url);
}

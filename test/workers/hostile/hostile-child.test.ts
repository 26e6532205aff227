import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  clientsOf,
  connectModern,
  hostileService,
  metric,
  startReady,
  textOf,
  untilIdle,
} from './helpers.ts';
import { assertServes, GROWTH_MB, growthDuring, startWorkerProcess } from './worker-process.ts';

/** A call that is under way while the server misbehaves, and must not feel it. */
async function bystander(url: string): Promise<() => Promise<void>> {
  const client = connectModern(url);
  const steps = 60;
  const pending = client.call(1, 'chatter', { steps, tag: '<bystander>' }, { meta: { progressToken: 1 } });
  return async () => {
    const { messages } = await pending;
    assert.equal(messages.at(-1).result?.content[0].text, '<bystander>', JSON.stringify(messages.at(-1)));
    assert.deepEqual(
      messages.slice(0, -1).map(({ params }) => [params.progressToken, params.progress, params.message]),
      Array.from({ length: steps }, (_, i) => [1, i + 1, '<bystander>']),
    );
  };
}

describe('one worker, many bad habits of its server: only the call itself feels them', {
  concurrency: false,
}, () => {
  const habits: { tool: string; desc?: string; args?: object; text?: string; code?: string }[] = [
    { tool: 'twice', text: 'first' },
    { tool: 'unknown-ids', args: { count: 2000 }, text: 'done' },
    { tool: 'wrong-id-types', text: 'mine' },
    { tool: 'progress-after', text: 'answer' },
    {
      tool: 'bytes',
      desc: 'binary garbage',
      args: {
        base64: Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 37) % 256)).toString('base64'),
      },
      text: 'printed',
    },
    {
      tool: 'bytes',
      desc: 'half a character',
      args: { base64: Buffer.from([0xe2, 0x82]).toString('base64') },
      text: 'printed',
    },
    {
      tool: 'bytes',
      desc: 'many empty and odd lines',
      args: {
        base64: Buffer.from(
          '\n\r\n\0\n{}\n[]\nnull\n1\n"x"\n[{}]\n{"jsonrpc":"2.0"}\n{"jsonrpc":"2.0","id":{}}\n'.repeat(200),
        ).toString('base64'),
      },
      text: 'printed',
    },
    {
      tool: 'bytes',
      desc: 'deep nesting',
      args: {
        base64: Buffer.from(
          `{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}}`,
        ).toString('base64'),
      },
      text: 'printed',
    },
    { tool: 'ask-much', desc: 'requests with one id', args: { count: 5000 }, text: 'asked' },
    {
      tool: 'ask-much',
      desc: 'requests of unknown methods',
      args: { count: 100, method: 'constructor' },
      text: 'asked',
    },
    {
      tool: 'flood',
      desc: 'progress for unknown tokens',
      args: { method: 'notifications/progress', count: 20_000 },
      text: 'flooded',
    },
    {
      tool: 'flood',
      desc: '100,000 notifications',
      args: { method: 'notifications/tools/list_changed', count: 100_000 },
      text: 'flooded',
    },
    {
      tool: 'flood',
      desc: 'logs',
      args: { method: 'notifications/message', count: 20_000, bytes: 1000 },
      text: 'flooded',
    },
    {
      tool: 'flood',
      desc: 'cancels of what it was never asked',
      args: { method: 'notifications/cancelled', count: 2000 },
      text: 'flooded',
    },
    {
      tool: 'flood',
      desc: 'notifications that nobody knows',
      args: { method: '__proto__', count: 2000 },
      text: 'flooded',
    },
    {
      tool: 'stderr',
      desc: '50 MB of stderr without an end of line',
      args: { bytes: 50 << 20 },
      text: 'wrote',
    },
    {
      tool: 'long-line',
      desc: 'a line of 100 MB that is its answer',
      args: { bytes: 100 << 20 },
      code: 'protocol_error',
    },
    {
      tool: 'long-line',
      desc: 'a line of 100 MB that is no answer',
      args: { bytes: 100 << 20, withId: false },
      text: 'done',
    },
  ];

  test('each of them', { timeout: 80_000 }, async t => {
    const worker = await startWorkerProcess(t, { limits: { line_bytes: 1 << 20 } });
    // Warm: what every worker needs for its first calls is not what this is about.
    await assertServes(worker);
    for (const { tool, desc = tool, args = {}, text, code } of habits) {
      await t.test(desc, async () => {
        const growth = await growthDuring(worker, async () => {
          for (const client of await clientsOf(worker.url)) {
            const unharmed = await bystander(worker.url);
            const { messages } = await client.call(7, tool, args, { meta: { progressToken: 'own' } });
            const last = messages.at(-1);
            assert.equal(last.id, 7);
            if (text !== undefined) assert.equal(last.result?.content[0].text, text, JSON.stringify(last));
            if (code !== undefined) assert.equal(last.error?.data.code, code, JSON.stringify(last));
            assert.equal(messages.filter(message => message.id !== undefined).length, 1);
            await unharmed();
          }
        });
        assert.ok(growth < GROWTH_MB, `${desc}: memory grew by ${Math.round(growth)} MB`);
        await assertServes(worker);
      });
    }
    await untilIdle(worker.url);
    assert.equal(await metric(worker.url, 'child_restarts_total'), 0);
  });
});

test('NOISE: a server that prints garbage before it speaks is served all the same', async t => {
  const NOISE = Buffer.from([
    0,
    255,
    254,
    10,
    123,
    10,
    91,
    10,
    34,
    13,
    10,
    ...Buffer.from('{"jsonrpc":"2.0","id":999,"result":[]}\n{"jsonrpc":"2.0","id":"1","result":"a["}\n'),
  ]);
  for (const ERA of ['legacy', 'modern'] as const) {
    const worker = await startReady(t, hostileService({ ERA, NOISE: NOISE.toString('base64') }));
    for (const client of await clientsOf(worker.url))
      assert.equal(textOf(await client.call(1, 'echo', { text: 'x' })), 'x');
  }
});

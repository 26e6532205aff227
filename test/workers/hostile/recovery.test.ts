import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { until } from '../../until.ts';
import {
  type Client,
  connectLegacy,
  connectModern,
  type Exchange,
  hostileService,
  metric,
  startReady,
  textOf,
  untilReady,
} from './helpers.ts';

describe('a server that can never answer again is started again', () => {
  for (const tool of ['close-stdout', 'close-stdin']) {
    test(tool, async t => {
      const worker = await startReady(t, hostileService({}, { timeout_ms: 5000 }));
      const client = connectModern(worker.url);
      const pid = textOf(await client.call(1, 'pid'));
      const { messages } = await client.call(2, tool);
      if (tool === 'close-stdout') {
        // Not after a time-out, which would say that a slow tool is at fault.
        assert.equal(messages.at(-1).error?.data.code, 'child_crashed', JSON.stringify(messages));
      }
      // The call that finds out may fail, but it must be found out.
      if (tool === 'close-stdin') await client.call(3, 'echo');
      await until(async () => (await metric(worker.url, 'child_restarts_total')) === 1);
      await untilReady(worker.url);
      assert.notEqual(textOf(await client.call(4, 'pid')), pid);
      assert.throws(() => process.kill(Number(pid), 0), { code: 'ESRCH' });
    });
  }

  test('a server that writes half a line and stops: its call ends by its time limit, the next line is not lost with it', async t => {
    const worker = await startReady(t, hostileService({}, { tool_timeouts: { 'half-line': 300 } }));
    const client = connectModern(worker.url);
    const { messages } = await client.call(1, 'half-line');
    assert.deepEqual([messages[0].id, messages[0].error.data.code], [1, 'timeout']);
    // The half line swallows what comes next on it; from the line after that all is well.
    assert.equal(textOf(await client.call(2, 'bytes', { base64: '' })), 'printed');
    assert.equal(textOf(await client.call(3, 'echo', { text: 'whole again' })), 'whole again');
  });
});

test('a session whose server dies again and again shuts nobody else out', async t => {
  const breaker = { failure_threshold: 5, recovery_timeout: 300 };
  const worker = await startReady(t, hostileService({}, { isolation: 'session', circuit_breaker: breaker }));
  const quiet = await connectLegacy(worker.url);
  assert.equal(textOf(await quiet.call(1, 'echo', { text: 'before' })), 'before');
  for (let round = 0; round < 3; round += 1) {
    const wild = await connectLegacy(worker.url);
    const pid = Number(textOf(await wild.call(1, 'pid')));
    const { answers } = await hang(wild, 6);
    process.kill(pid, 'SIGKILL');
    for (const { messages } of await answers) assert.equal(messages.at(-1).error.data.code, 'child_crashed');
  }
  assert.equal(textOf(await quiet.call(2, 'echo', { text: 'after' })), 'after');
});

test('one crash with many calls in flight does not shut out the server that was started again', async t => {
  const breaker = { failure_threshold: 5, recovery_timeout: 300 };
  const worker = await startReady(t, hostileService({}, { circuit_breaker: breaker }));
  const client = connectModern(worker.url);
  const pid = Number(textOf(await client.call(1, 'pid')));
  const { answers } = await hang(client, 10);
  process.kill(pid, 'SIGKILL');
  await answers;
  await untilReady(worker.url);
  assert.equal(textOf(await client.call(2, 'echo', { text: 'back' })), 'back');
});

test('time limits that callers choose do not shut out the others', async t => {
  const breaker = { failure_threshold: 5, recovery_timeout: 300 };
  const worker = await startReady(t, hostileService({}, { circuit_breaker: breaker }));
  for (let i = 0; i < 10; i += 1) {
    const { json } = await worker.post('/execute', { command: 'hang', params: {}, timeout_ms: 1 });
    assert.equal(json.code, 'timeout', JSON.stringify(json));
  }
  assert.equal((await worker.post('/tools/echo', { text: 'x' })).json.content[0].text, 'x');
});

/** Calls of a tool that never answers; resolves when all of them are in the server. */
async function hang(client: Client, count: number): Promise<{ answers: Promise<Exchange[]> }> {
  let hanging = 0;
  const onMessage = ({ method }: { method?: string }) => {
    if (method === 'notifications/progress') hanging += 1;
  };
  const calls = Array.from({ length: count }, (_, i) =>
    client.call(`h${i}`, 'hang', {}, { meta: { progressToken: i }, onMessage }),
  );
  await until(() => hanging === count);
  return { answers: Promise.all(calls) };
}

import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { prefersStream } from '../../workers/accept.ts';
import { until } from '../until.ts';
import { ready, scriptedService, startTestWorker, type TestWorker } from './helpers.ts';
import { metric } from './hostile/helpers.ts';
import { type listedService, startListed } from './listed.ts';

const TELL = { name: 'tell', inputSchema: { type: 'object' } };
const STREAM = { accept: 'text/event-stream' };

/** Events of a finished stream: their types and data. */
function eventsIn(text: string): [type: string, data: object][] {
  return [...text.matchAll(/^event: (\w+)\ndata: (.*)$/gm)].map(([, type = '', data = '']) => [
    type,
    JSON.parse(data),
  ]);
}

async function startScripted(
  t: TestContext,
  ...service: Parameters<typeof scriptedService>
): Promise<TestWorker> {
  const worker = await startTestWorker(t, scriptedService(...service));
  await ready(worker);
  return worker;
}

describe('a client that prefers events', () => {
  test('gets progress as the server tells it, then the result', async t => {
    const worker = await startScripted(t);
    for (const answer of [
      await worker.post('/tools/progress', { steps: 2, ms: 1 }, STREAM),
      await worker.post('/execute', { command: 'progress', params: { steps: 2, ms: 1 } }, STREAM),
    ]) {
      assert.deepEqual([answer.status, answer.headers.get('content-type')], [200, 'text/event-stream']);
      assert.deepEqual(eventsIn(answer.text), [
        ['progress', { progress: 1, total: 2 }],
        ['progress', { progress: 2, total: 2 }],
        ['result', { content: [{ type: 'text', text: 'done' }] }],
      ]);
    }
  });

  test('gets the logs that are certainly its own', async t => {
    const cases: [service: Parameters<typeof listedService>, logs: boolean][] = [
      [[[TELL], { ERA: 'modern' }], true],
      [[[TELL], {}, { isolation: 'session' }], true],
      [[[TELL]], false],
    ];
    for (const [service, logs] of cases) {
      const worker = await startListed(t, ...service);
      const events = eventsIn((await worker.post('/tools/tell', {}, STREAM)).text);
      const log = logs ? [['log', { level: 'info', data: 'said' }]] : [];
      assert.deepEqual(events.slice(0, -1), [['progress', { progress: 1, message: 'one\nline' }], ...log]);
      assert.equal(events.at(-1)?.[0], 'result');
    }
  });

  test('is refused by status before anything was delivered', async t => {
    const worker = await startScripted(t);
    const { status, json } = await worker.post('/execute', { command: '' }, STREAM);
    assert.deepEqual([status, json.code], [400, 'invalid_request']);
  });

  test('gets what fails after that as the last event', async t => {
    const worker = await startScripted(t);
    for (const [command, code] of [
      ['crash', 'child_crashed'],
      ['rpc-error', 'invalid_arguments'],
    ]) {
      const { status, text } = await worker.post(
        '/execute',
        { command },
        { ...STREAM, 'x-request-id': 'call-4711' },
      );
      const [[type, data] = [], ...more] = eventsIn(text);
      assert.deepEqual([status, type, more], [200, 'error', []]);
      assert.partialDeepStrictEqual(data, {
        code,
        call_id: 'call-4711',
        delivered: code === 'child_crashed' ? 'unknown' : 'yes',
      });
      await ready(worker);
    }
  });

  test('cancels its call by going away', async t => {
    const worker = await startScripted(t, '', { isolation: 'shared' });
    const gone = new AbortController();
    const call = fetch(`${worker.url}/tools/silent`, {
      method: 'POST',
      headers: { ...STREAM, 'content-type': 'application/json' },
      signal: gone.signal,
    });
    await until('the call', async () => (await metric(worker.url, 'in_flight')) === 1);
    gone.abort();
    await assert.rejects(call);
    await until('its end', async () => (await metric(worker.url, 'in_flight')) === 0);
    const session = await worker.connect();
    const told = await session({ jsonrpc: '2.0', id: 1, method: 'test/cancelled' });
    assert.equal(told.json.result.cancelled.length, 1, told.text);
  });
});

test('integers beyond 2^53 pass a stream as they were written', async t => {
  const worker = await startListed(t, [TELL]);
  const { text } = await worker.post('/tools/tell', '{"n":12345678901234567890}', STREAM);
  assert.match(text, /12345678901234567890/);
});

describe('what a client prefers', () => {
  const cases: [accept: string | undefined, stream: boolean][] = [
    [undefined, false],
    ['*/*', false],
    ['text/event-stream', true],
    ['TEXT/Event-Stream', true],
    ['text/event-stream, application/json', true],
    ['application/json, text/event-stream', false],
    ['application/json;q=0.5, text/event-stream', true],
    ['text/event-stream;q=0.5, application/json', false],
    ['text/event-stream;q=0.9, */*;q=0.8', true],
    ['*/*, text/event-stream;q=0', false],
    ['text/event-stream;q=0', false],
    ['text/html, */*;q=0.8', false],
    ['text/event-stream;q=x', true],
  ];
  for (const [accept, stream] of cases) {
    test(`${accept}: ${stream ? 'events' : 'one body'}`, () => assert.equal(prefersStream(accept), stream));
  }
});

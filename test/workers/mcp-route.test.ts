import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { INITIALIZE, readAnswer, ready, scriptedService, startTestWorker, toolCall } from './helpers.ts';

test('initialize answers what the server said of itself, the version asked for, and a session', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  for (const [asked, got] of [
    ['2025-06-18', '2025-06-18'],
    ['2031-01-01', '2025-11-25'],
  ]) {
    const body = { ...INITIALIZE, id: 'abc', params: { ...INITIALIZE.params, protocolVersion: asked } };
    const { json, headers } = await worker.post('/mcp', body);
    assert.equal(json.id, 'abc');
    assert.equal(json.result.protocolVersion, got);
    assert.deepEqual(json.result.serverInfo, { name: 'scripted', version: '1.2.3' });
    // Not promised to one of many clients of a shared server: logs, which name nobody.
    assert.deepEqual(json.result.capabilities, {
      tools: { listChanged: true },
      resources: { subscribe: true },
    });
    assert.ok(headers.get('mcp-session-id'));
  }
});

test('answers find their callers: the same id from many clients at once', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const clients = await Promise.all(Array.from({ length: 8 }, () => worker.connect()));
  const answers = await Promise.all(
    clients.flatMap((call, client) =>
      [1, 1, 'x'].map(id => call(toolCall(id, 'echo', { text: `${client}-${id}` }))),
    ),
  );
  answers.forEach(({ json }, i) => {
    const id = [1, 1, 'x'][i % 3];
    assert.equal(json.id, id);
    assert.equal(json.result.content[0].text, `${Math.floor(i / 3)}-${id}`);
  });
});

test('an answer is forwarded as the server wrote it', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const call = await worker.connect();
  const { text } = await call(toolCall(5, 'echo', { text: 'é' }));
  assert.equal(
    text,
    '{"result":{"content":[{"type":"text","text":"é"}]},"jsonrpc":"2.0","id":5,"x-extra":{"kept":true}}',
  );
});

test('progress streams while the call runs, under the token the client chose', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const call = await worker.connect();
  const { text, headers } = await call(
    toolCall(1, 'progress', { steps: 3, ms: 5 }, { progressToken: 'tök' }),
  );
  assert.match(headers.get('content-type') ?? '', /text\/event-stream/);
  const events = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data ?? ''));
  assert.deepEqual(
    events.map(event => event.params?.progress),
    [1, 2, 3, undefined],
  );
  assert.deepEqual([...new Set(events.slice(0, 3).map(event => event.params.progressToken))], ['tök']);
  assert.equal(events[3].result.content[0].text, 'done');
});

test('the first event arrives before the last is made', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const { headers } = await worker.post('/mcp', INITIALIZE);
  const response = await fetch(`${worker.url}/mcp`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-session-id': headers.get('mcp-session-id') ?? '',
    },
    body: JSON.stringify(toolCall(1, 'progress', { steps: 2, ms: 300 }, { progressToken: 1 })),
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const first = Buffer.from((await reader.read()).value ?? []).toString();
  assert.match(first, /"progress":1/);
  assert.doesNotMatch(first, /"progress":2|result/);
  await reader.cancel();
});

test('a client that reads no streams gets one JSON answer and no progress', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const call = await worker.connect();
  const { json } = await call(toolCall(1, 'progress', { steps: 2, ms: 1 }, { progressToken: 1 }), {
    accept: 'application/json',
  });
  assert.equal(json.result.content[0].text, 'done');
});

test('a client cancels its own request and nobody else’s', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const [mine, other] = await Promise.all([worker.connect(), worker.connect()]);
  const pending = mine(toolCall(1, 'silent'));
  const cancel = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } };
  await new Promise(resolve => setTimeout(resolve, 50));
  assert.equal((await other(cancel)).status, 202);
  const untouched = await other({ jsonrpc: '2.0', id: 2, method: 'test/cancelled' });
  assert.deepEqual(untouched.json.result.cancelled, []);
  assert.equal((await mine(cancel)).status, 202);
  assert.equal((await pending).json.error.data.code, 'cancelled');
  const { json } = await other({ jsonrpc: '2.0', id: 3, method: 'test/cancelled' });
  assert.equal(json.result.cancelled.length, 1);
});

test('what a shared server cannot keep is not offered, and ping is answered here', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const call = await worker.connect();
  assert.deepEqual((await call({ jsonrpc: '2.0', id: 1, method: 'ping' })).json.result, {});
  const { json, status } = await call({
    jsonrpc: '2.0',
    id: 2,
    method: 'logging/setLevel',
    params: { level: 'debug' },
  });
  assert.deepEqual([status, json.error.code], [200, -32601]);
});

test('a server that asks its client is refused, not left waiting', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const call = await worker.connect();
  const { json } = await call(toolCall(1, 'ask'));
  assert.equal(JSON.parse(json.result.content[0].text).code, -32601);
});

describe('bad input is answered from the catalogue', () => {
  const init = JSON.stringify(INITIALIZE);
  const call = JSON.stringify(toolCall(1, 'echo'));
  const cases: {
    desc: string;
    body?: string;
    headers?: Record<string, string>;
    method?: string;
    status: number;
    code: string;
  }[] = [
    { desc: 'not JSON', body: '{"a"', status: 400, code: 'parse_error' },
    { desc: 'empty body', body: '', status: 400, code: 'parse_error' },
    { desc: 'no message', body: '[]', status: 400, code: 'invalid_request' },
    {
      desc: 'wrong content type',
      body: init,
      headers: { 'content-type': 'text/plain' },
      status: 415,
      code: 'unsupported_media_type',
    },
    {
      desc: 'unwelcome answer',
      body: init,
      headers: { accept: 'text/html' },
      status: 406,
      code: 'not_acceptable',
    },
    { desc: 'no session', body: call, status: 400, code: 'invalid_request' },
    {
      desc: 'made-up session',
      body: call,
      headers: { 'mcp-session-id': 'a.b.c' },
      status: 404,
      code: 'unknown_session',
    },
    {
      desc: 'unknown version',
      body: call,
      headers: { 'mcp-protocol-version': '1.0' },
      status: 400,
      code: 'invalid_request',
    },
    { desc: 'too large', body: `{"a":"${'x'.repeat(3000)}"}`, status: 413, code: 'too_large' },
    {
      desc: 'foreign Origin',
      body: init,
      headers: { origin: 'http://evil.example' },
      status: 403,
      code: 'forbidden',
    },
    { desc: 'GET without a session', method: 'GET', status: 400, code: 'invalid_request' },
    { desc: 'DELETE without a session', method: 'DELETE', status: 400, code: 'invalid_request' },
  ];
  for (const { desc, body, headers, method = 'POST', status, code } of cases) {
    test(desc, async t => {
      const limits = { ...scriptedService().limits, request_bytes: 2048 };
      const worker = await startTestWorker(t, scriptedService('', { limits }));
      await ready(worker);
      const response = await fetch(`${worker.url}/mcp`, {
        method,
        headers: {
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
          ...headers,
        },
        ...(body === undefined ? {} : { body }),
      });
      const answer = await readAnswer(response);
      assert.deepEqual([answer.status, answer.json.error.data.code], [status, code], answer.text);
      assert.equal(answer.json.id, null);
      assert.equal(answer.headers.get('x-request-id'), answer.json.error.data.call_id);
      assert.doesNotMatch(answer.text, /\bat .*\.ts:\d+/);
    });
  }

  test('invalid UTF-8', async t => {
    const worker = await startTestWorker(t, scriptedService());
    const response = await fetch(`${worker.url}/mcp`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: '*/*' },
      body: Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]),
    });
    assert.equal((await readAnswer(response)).json.error.data.code, 'parse_error');
  });
});

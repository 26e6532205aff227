import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readAnswer, ready, scriptedService, startTestWorker } from './helpers.ts';

test('execute calls a tool, or an MCP method, and answers its bare result', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const tool = await worker.post('/execute', { command: 'echo', params: { text: 'hi' } });
  assert.deepEqual([tool.status, tool.json], [200, { content: [{ type: 'text', text: 'hi' }] }]);
  const list = await worker.post('/execute', { command: 'tools/list' });
  assert.ok(list.json.tools.some(({ name }: { name: string }) => name === 'echo'));
});

test('tools are listed and called by path', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const list = await readAnswer(await fetch(`${worker.url}/tools`));
  assert.ok(list.json.tools.length > 3);
  const call = await worker.post('/tools/echo', { text: 'by path' });
  assert.equal(call.json.content[0].text, 'by path');
});

test('integers beyond 2^53 reach the server as they were sent', async t => {
  const worker = await startTestWorker(t, {
    ...scriptedService(),
    // Answers the raw line it was sent.
    args: [
      '-e',
      `require('node:readline').createInterface({ input: process.stdin }).on('line', line => {
        const { id, method, params } = JSON.parse(line);
        if (method === 'initialize') console.log(JSON.stringify({ jsonrpc: '2.0', id, result: { protocolVersion: params.protocolVersion, capabilities: {}, serverInfo: { name: 'raw', version: '1' } } }));
        else if (id !== undefined) console.log(JSON.stringify({ jsonrpc: '2.0', id, result: { line } }));
      })`,
    ],
  });
  await ready(worker);
  const { json } = await worker.post('/execute', '{"command":"t","params":{"n":12345678901234567890}}');
  assert.match(json.line, /"arguments":\{"n":12345678901234567890\}/);
});

describe('bad input is answered with problem details', () => {
  const cases = [
    { desc: 'no command', body: '{}', status: 400, code: 'invalid_request' },
    { desc: 'command is a number', body: '{"command":1}', status: 400, code: 'invalid_request' },
    { desc: 'unknown member', body: '{"command":"echo","parms":{}}', status: 400, code: 'invalid_request' },
    {
      desc: 'params is a list',
      body: '{"command":"echo","params":[]}',
      status: 400,
      code: 'invalid_request',
    },
    {
      desc: 'params twice',
      body: '{"command":"tools/call","params":{"name":"a","name":"b"}}',
      status: 400,
      code: 'invalid_request',
    },
    {
      desc: 'timeout is negative',
      body: '{"command":"echo","timeout_ms":-1}',
      status: 400,
      code: 'invalid_request',
    },
    { desc: 'a list', body: '[]', status: 400, code: 'invalid_request' },
    { desc: 'not JSON', body: 'command=echo', status: 400, code: 'parse_error' },
    { desc: 'nothing', body: '', status: 400, code: 'parse_error' },
    {
      desc: 'the server says the arguments are wrong',
      body: '{"command":"rpc-error"}',
      status: 422,
      code: 'invalid_arguments',
    },
    {
      desc: 'slower than the caller waits',
      body: '{"command":"silent","timeout_ms":50}',
      status: 504,
      code: 'timeout',
    },
    { desc: 'the server crashes', body: '{"command":"crash"}', status: 502, code: 'child_crashed' },
  ];
  for (const { desc, body, status, code } of cases) {
    test(desc, async t => {
      const worker = await startTestWorker(t, scriptedService());
      await ready(worker);
      const answer = await worker.post('/execute', body, { 'x-request-id': 'call-4711' });
      assert.deepEqual(
        [answer.status, answer.json.code, answer.json.status],
        [status, code, status],
        answer.text,
      );
      assert.match(answer.headers.get('content-type') ?? '', /^application\/problem\+json/);
      assert.deepEqual([answer.json.call_id, answer.headers.get('x-request-id')], ['call-4711', 'call-4711']);
      assert.doesNotMatch(answer.text, /secret|\bat .*\.ts:\d+/);
    });
  }

  test('an unknown path says which there are', async t => {
    const worker = await startTestWorker(t, scriptedService());
    const answer = await worker.post('/exceute', '{}');
    assert.deepEqual([answer.status, answer.json.code], [404, 'unknown_path']);
    assert.match(answer.json.detail, /\/execute/);
  });

  for (const path of ['/*/', '/*x', '/:tool', '/:(', '/:(a*)*', '/tools/:tool/x', '/tools/a*/b', '/MCP']) {
    test(`what would be the pattern of a route is an unknown path: ${path}`, async t => {
      const worker = await startTestWorker(t, scriptedService());
      for (const method of ['GET', 'POST', 'OPTIONS']) {
        const { status, json } = await readAnswer(await fetch(`${worker.url}${path}`, { method }));
        assert.deepEqual([status, json.code], [404, 'unknown_path'], method);
      }
    });
  }

  for (const [method, path, allow] of [
    ['PUT', '/mcp', 'POST, GET, DELETE'],
    ['GET', '/execute?x=/mcp', 'POST'],
    ['GET', '/tools/a.b*c', 'POST'],
    ['OPTIONS', '/tools', 'GET'],
    ['POST', '/alive', 'GET'],
  ] as const) {
    test(`another method than a path has says which it has: ${method} ${path}`, async t => {
      const worker = await startTestWorker(t, scriptedService('', { health_check: '/alive' }));
      const { status, headers, json } = await readAnswer(await fetch(`${worker.url}${path}`, { method }));
      assert.deepEqual([status, headers.get('allow')], [405, allow]);
      assert.equal(json.code ?? json.error.data.code, 'method_not_allowed');
      assert.match(json.detail ?? json.error.message, new RegExp(`use ${allow.replaceAll(', ', ' or ')}$`));
    });
  }

  test('while the server is down, callers learn why and when to try again', async t => {
    const worker = await startTestWorker(t, scriptedService('die'));
    let answer = await worker.post('/execute', { command: 'echo' });
    while (answer.json.detail === 'child is starting')
      answer = await worker.post('/execute', { command: 'echo' });
    assert.deepEqual(
      [answer.status, answer.json.code, answer.json.delivered],
      [503, 'child_unavailable', 'no'],
    );
    assert.equal(answer.json.detail, 'child exits with 3');
    assert.ok(Number(answer.headers.get('retry-after')) >= 1);
    const health = await readAnswer(await fetch(`${worker.url}/health`));
    assert.deepEqual(
      [health.status, health.json.reason],
      [503, 'child exits with 3; last words: cannot open the database'],
    );
  });
});

describe('the breaker', () => {
  const circuit_breaker = { failure_threshold: 2, recovery_timeout: 30 };

  test('opens after so many failures in a row and says when to come back', async t => {
    const worker = await startTestWorker(
      t,
      scriptedService('', { circuit_breaker, tool_timeouts: { silent: 20 } }),
    );
    await ready(worker);
    const codes = [];
    for (let i = 0; i < 3; i += 1)
      codes.push((await worker.post('/execute', { command: 'silent' })).json.code);
    assert.deepEqual(codes, ['timeout', 'timeout', 'circuit_open']);
    const { headers } = await worker.post('/execute', { command: 'echo' });
    assert.ok(Number(headers.get('retry-after')) > 20);
  });

  test('is not opened by callers who wait less than the service allows', async t => {
    const worker = await startTestWorker(t, scriptedService('', { circuit_breaker }));
    await ready(worker);
    for (let i = 0; i < 5; i += 1) await worker.post('/execute', { command: 'silent', timeout_ms: 10 });
    assert.equal((await worker.post('/execute', { command: 'echo' })).status, 200);
  });

  test('counts a crash once, however many calls were in it', async t => {
    const worker = await startTestWorker(t, scriptedService('', { circuit_breaker }));
    await ready(worker);
    const inside = Array.from({ length: 6 }, () => worker.post('/execute', { command: 'silent' }));
    const crash = await worker.post('/execute', { command: 'crash' });
    assert.deepEqual(
      [...(await Promise.all(inside)), crash].map(({ json }) => json.code),
      Array(7).fill('child_crashed'),
    );
    await ready(worker);
    assert.equal((await worker.post('/execute', { command: 'echo' })).status, 200);
  });
});

test('metrics count calls by method and outcome, and unknown methods as one', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const call = await worker.connect();
  for (let i = 0; i < 3; i += 1) await call({ jsonrpc: '2.0', id: i, method: `made/up-${i}` });
  await worker.post('/execute', { command: 'echo' });
  const text = await (await fetch(`${worker.url}/metrics`)).text();
  assert.match(
    text,
    /mcp_mesh_worker_request_duration_seconds_count\{service="scripted",method="tools\/call",outcome="ok"\} 1/,
  );
  assert.match(text, /_count\{service="scripted",method="other",outcome="ok"\} 3/);
  assert.match(text, /mcp_mesh_worker_child_up\{service="scripted"\} 1/);
  assert.doesNotMatch(text, /made\/up/);
});

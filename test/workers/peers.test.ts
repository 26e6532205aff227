import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startConsul } from '../../kong/dev/consul.ts';
import { createConsul } from '../../mesh/consul.ts';
import { adHocService, type Service } from '../../mesh/registry.ts';
import {
  type Answer,
  INITIALIZE,
  readAnswer,
  ready,
  startTestWorker,
  type TestWorker,
  toolCall,
} from './helpers.ts';

const LEGACY = fileURLToPath(new URL('../fixtures/conformance/legacy.ts', import.meta.url));
const MODERN = fileURLToPath(new URL('../fixtures/conformance/modern.ts', import.meta.url));

/** Two workers of one service that find each other in Consul and share the service's key. */
async function startPair(
  t: TestContext,
  fixture: string,
  isolation: Service['isolation'],
): Promise<[TestWorker, TestWorker]> {
  const { url, close } = await startConsul();
  const service = adHocService({ name: 'pair', command: process.execPath, args: [fixture], isolation });
  const settings = { consul: { url }, advertiseAddress: '127.0.0.1', serviceKeys: [randomBytes(32)] };
  const pair = [
    await startTestWorker(t, service, settings),
    await startTestWorker(t, service, settings),
  ] as const;
  t.after(close);
  await Promise.all(pair.map(ready));
  const consul = createConsul({ url });
  await new Promise<void>(resolve => {
    consul.watchInstances('mcp-pair', instances => instances.length === 2 && resolve(), assert.fail);
  });
  consul.close();
  return [...pair];
}

const modernHeaders = (method: string, name?: string) => ({
  'mcp-protocol-version': '2026-07-28',
  'mcp-method': method,
  ...(name === undefined ? {} : { 'mcp-name': name }),
});
const modernCall = (
  id: number,
  name: string,
  more: object = {},
  capabilities: object = { elicitation: {}, sampling: {}, roots: {} },
) => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: {
    name,
    arguments: {},
    ...more,
    _meta: {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': capabilities,
    },
  },
});
const TOOL = 'test_input_required_result_elicitation';
const call = (worker: TestWorker, body: ReturnType<typeof modernCall>) =>
  worker.post('/mcp', body, modernHeaders('tools/call', body.params.name));
const answersTo = ({ json }: Answer) =>
  Object.fromEntries(
    Object.keys(json.result.inputRequests).map(key => [
      key,
      { action: 'accept', content: { name: 'Ada', user_name: 'Ada' } },
    ]),
  );

test('a call that waits for its client is found by whichever worker the answers come to, once', async t => {
  const [first, second] = await startPair(t, LEGACY, 'session');
  const asked = await call(first, modernCall(1, TOOL));
  assert.equal(asked.json.result.resultType, 'input_required', asked.text);
  const { requestState } = asked.json.result;
  const retry = modernCall(2, TOOL, { requestState, inputResponses: answersTo(asked) });
  const done = await call(second, retry);
  assert.deepEqual([done.json.id, done.json.result?.resultType], [2, 'complete'], done.text);
  const again = await call(second, { ...retry, id: 3 });
  assert.equal(again.json.error.code, -32602);
});

test('a state is good for the request it was made for, unchanged, and for nothing else', async t => {
  const [first, second] = await startPair(t, LEGACY, 'session');
  const asked = await call(first, modernCall(1, TOOL));
  const { requestState } = asked.json.result;
  const inputResponses = answersTo(asked);
  const tampered = `${requestState.slice(0, -2)}AA`;
  for (const worker of [first, second]) {
    const other = await call(
      worker,
      modernCall(2, 'test_input_required_result_sampling', { requestState, inputResponses }),
    );
    assert.equal(other.json.error.code, -32602);
    const forged = await call(worker, modernCall(3, TOOL, { requestState: tampered, inputResponses }));
    assert.equal(forged.json.error.code, -32602);
  }
  const late = await call(second, modernCall(4, TOOL, { requestState, inputResponses }));
  assert.equal(late.json.result.resultType, 'complete');
});

test('a session’s own server is reached through any worker, and gone with its worker', async t => {
  const [first, second] = await startPair(t, LEGACY, 'session');
  const opened = await first.post('/mcp', INITIALIZE);
  const session = { 'mcp-session-id': opened.headers.get('mcp-session-id') ?? '' };
  const there = await second.post('/mcp', toolCall(1, 'test_simple_text'), session);
  assert.ok(there.json?.result?.content, there.text);
  const ended = await readAnswer(await fetch(`${second.url}/mcp`, { method: 'DELETE', headers: session }));
  assert.equal(ended.status, 204);
  assert.equal((await first.post('/mcp', toolCall(2, 'test_simple_text'), session)).status, 404);

  const again = await first.post('/mcp', INITIALIZE);
  const lost = { 'mcp-session-id': again.headers.get('mcp-session-id') ?? '' };
  await first.stop();
  assert.equal((await second.post('/mcp', toolCall(1, 'test_simple_text'), lost)).status, 404);
});

test('an answer to a question that another worker asked is passed on to it', async t => {
  const [first, second] = await startPair(t, MODERN, 'shared');
  const capable = { ...INITIALIZE, params: { ...INITIALIZE.params, capabilities: { elicitation: {} } } };
  const opened = await first.post('/mcp', capable);
  const session = { 'mcp-session-id': opened.headers.get('mcp-session-id') ?? '' };
  const response = await fetch(`${first.url}/mcp`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...session,
    },
    body: JSON.stringify(toolCall(1, TOOL)),
  });
  const reader = (response.body as ReadableStream<Uint8Array>)
    .pipeThrough(new TextDecoderStream())
    .getReader();
  let text = '';
  const nextData = async () => {
    for (;;) {
      const found = /^data: (\{.*\})\n\n/m.exec(text);
      if (found) {
        text = text.slice(text.indexOf(found[0]) + found[0].length);
        return JSON.parse(found[1] ?? '');
      }
      const { value, done } = await reader.read();
      assert.ok(!done, text);
      text += value;
    }
  };
  const question = await nextData();
  assert.equal(question.method, 'elicitation/create');
  const result = { action: 'accept', content: { user_name: 'Ada', name: 'Ada' } };
  const posted = await second.post('/mcp', { jsonrpc: '2.0', id: question.id, result }, session);
  assert.equal(posted.status, 202);
  assert.match(JSON.stringify(await nextData()), /Ada/);
});

test('a mark of being passed on that no peer made is refused', async t => {
  const [first] = await startPair(t, LEGACY, 'shared');
  const expiry = Date.now() + 10_000;
  for (const mark of ['1', `${expiry}.`, `${expiry}.${randomBytes(32).toString('base64url')}`]) {
    const { status, json } = await first.post('/mcp', INITIALIZE, { 'x-mesh-forward': mark });
    assert.deepEqual([status, json.error.data.code], [403, 'forbidden']);
  }
});

test('a question nobody comes back for is answered for the server when its worker stops', async t => {
  const [first] = await startPair(t, LEGACY, 'session');
  await call(first, modernCall(1, TOOL));
  await pause(10);
  await first.stop();
});

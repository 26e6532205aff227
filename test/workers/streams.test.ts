import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { adHocService } from '../../mesh/registry.ts';
import { INITIALIZE, ready, scriptedService, startTestWorker, type TestWorker, toolCall } from './helpers.ts';

const fixture = (name: string) =>
  fileURLToPath(new URL(`../fixtures/conformance/${name}.ts`, import.meta.url));
const serviceOf = (name: string) => adHocService({ name, command: process.execPath, args: [fixture(name)] });

interface Events {
  headers: Headers;
  /** The next event with data, as `{ id, data }`; undefined at the end of the stream. */
  // biome-ignore lint/suspicious/noExplicitAny: a message is whatever the test expects of it
  next(): Promise<{ id: string | undefined; data: any } | undefined>;
  close(): Promise<void>;
}

async function open(t: TestContext, url: string, init: RequestInit): Promise<Events> {
  const response = await fetch(url, init);
  assert.equal(response.status, 200, await (response.ok ? '' : response.text()));
  const reader = (response.body as ReadableStream<Uint8Array>)
    .pipeThrough(new TextDecoderStream())
    .getReader();
  t.after(() => reader.cancel().catch(() => {}));
  let text = '';
  return {
    headers: response.headers,
    close: () => reader.cancel(),
    async next() {
      for (;;) {
        const end = text.indexOf('\n\n');
        if (end >= 0) {
          const event = text.slice(0, end);
          text = text.slice(end + 2);
          const data = /^data: (.+)$/m.exec(event)?.[1];
          const id = /^id: (.*)$/m.exec(event)?.[1];
          if (data !== undefined) return { id, data: JSON.parse(data) };
          if (id !== undefined) return { id, data: undefined };
          continue;
        }
        const { value, done } = await reader.read();
        if (done) return undefined;
        text += value;
      }
    },
  };
}

async function session(worker: TestWorker): Promise<Record<string, string>> {
  const { headers } = await worker.post('/mcp', INITIALIZE);
  return { 'mcp-session-id': headers.get('mcp-session-id') ?? '' };
}

const listen = (t: TestContext, worker: TestWorker, headers: Record<string, string>) =>
  open(t, `${worker.url}/mcp`, { headers: { accept: 'text/event-stream', ...headers } });

test('a broken stream is taken up where it broke, by its own session only', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const [mine, other] = [await session(worker), await session(worker)];
  const broken = await open(t, `${worker.url}/mcp`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...mine },
    body: JSON.stringify(toolCall(1, 'progress', { steps: 3, ms: 60 }, { progressToken: 'p' })),
  });
  assert.equal((await broken.next())?.data, undefined);
  const first = await broken.next();
  assert.equal(first?.data.params.progress, 1);
  await broken.close();

  const foreign = await listen(t, worker, { ...other, 'last-event-id': first?.id ?? '' });
  await foreign.close();
  const resumed = await listen(t, worker, { ...mine, 'last-event-id': first?.id ?? '' });
  const rest = [];
  for (let event = await resumed.next(); event; event = await resumed.next())
    if (event.data) rest.push(event.data);
  assert.deepEqual(
    rest.map(({ params, result }) => params?.progress ?? result.content[0].text),
    [2, 3, 'done'],
  );
});

for (const name of ['legacy', 'modern']) {
  test(`${name} server: changes reach each session that listens, once; updates only those who subscribed`, async t => {
    const worker = await startTestWorker(t, serviceOf(name));
    await ready(worker);
    const [a, b] = [await session(worker), await session(worker)];
    const [listenA, listenB] = [await listen(t, worker, a), await listen(t, worker, b)];
    const subscribe = {
      jsonrpc: '2.0',
      id: 1,
      method: 'resources/subscribe',
      params: { uri: 'test://watched-resource' },
    };
    assert.deepEqual((await worker.post('/mcp', subscribe, a)).json.result, {});
    await worker.post('/mcp', toolCall(2, 'test_trigger_tool_change'), b);
    for (const events of [listenA, listenB]) {
      assert.equal((await events.next())?.data.method, 'notifications/tools/list_changed');
    }
    await worker.post('/mcp', toolCall(3, 'test_trigger_prompt_change'), b);
    for (const events of [listenA, listenB]) {
      // The very next event: the change of the tools was told once.
      const { data } = (await events.next()) ?? {};
      assert.equal(data.method, 'notifications/prompts/list_changed');
      assert.equal(data.params?._meta, undefined);
    }
  });

  test(`${name} server: a modern client hears what it asked for, under its own id, until the worker stops`, async t => {
    const worker = await startTestWorker(t, serviceOf(name));
    await ready(worker);
    const events = await open(t, `${worker.url}/mcp`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'mcp-protocol-version': '2026-07-28',
        'mcp-method': 'subscriptions/listen',
      },
      body: JSON.stringify({
        jsonrpc: '2.0',
        id: 'mine',
        method: 'subscriptions/listen',
        params: {
          notifications: { toolsListChanged: true },
          _meta: {
            'io.modelcontextprotocol/protocolVersion': '2026-07-28',
            'io.modelcontextprotocol/clientCapabilities': {},
          },
        },
      }),
    });
    const acknowledged = (await events.next())?.data;
    assert.equal(acknowledged.method, 'notifications/subscriptions/acknowledged');
    assert.deepEqual(acknowledged.params.notifications, { toolsListChanged: true });
    const anybody = await session(worker);
    await worker.post('/mcp', toolCall(1, 'test_trigger_prompt_change'), anybody);
    await worker.post('/mcp', toolCall(2, 'test_trigger_tool_change'), anybody);
    const change = (await events.next())?.data;
    assert.equal(change.method, 'notifications/tools/list_changed');
    assert.equal(change.params._meta['io.modelcontextprotocol/subscriptionId'], 'mine');
    const stopped = worker.stop();
    const last = (await events.next())?.data;
    assert.deepEqual([last.id, last.result.resultType], ['mine', 'complete']);
    assert.equal(await events.next(), undefined);
    await stopped;
  });
}

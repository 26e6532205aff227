import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import { parseTraceContext } from '../../mesh/trace-context.ts';
import { createSpanTracing } from '../../workers/spans.ts';
import { type ReceivedSpan, startReceiver } from '../otlp-receiver.ts';
import { connectLegacy, post } from './hostile/helpers.ts';
import { folderOf, startTracedWorker, tracingTo } from './tracing-helpers.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const OTHER_TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = '00f067aa0ba902b7';
const SAMPLED = `00-${TRACE}-${SPAN}-01`;
const SERVER = 2;
const CLIENT = 3;

const metaOf = (message: { params: { _meta?: Record<string, unknown> } }) => message.params._meta;

function pairOf(spans: ReceivedSpan[]): { server: ReceivedSpan; client: ReceivedSpan } {
  const server = spans.find(({ kind }) => kind === SERVER);
  const client = spans.find(({ kind }) => kind === CLIENT);
  assert.ok(server && client, `a server and a client span among ${spans.map(({ name }) => name)}`);
  return { server, client };
}

test('a call continues its caller’s trace into the server: receive, execution, _meta', async t => {
  const receiver = await startReceiver(t);
  const worker = await startTracedWorker(t, { tracing: tracingTo(receiver.url) });
  const headers = { traceparent: SAMPLED, tracestate: 'vendor=1,other=2', 'x-request-id': 'call-12345' };
  const meta = metaOf(await worker.tell(headers));
  const { server, client } = pairOf(await receiver.wait(2));
  assert.deepEqual([server.traceId, client.traceId], [TRACE, TRACE]);
  assert.equal(server.parentSpanId, SPAN);
  assert.equal(client.parentSpanId, server.spanId);
  assert.deepEqual(meta, {
    traceparent: `00-${TRACE}-${client.spanId}-01`,
    tracestate: 'vendor=1,other=2',
  });
  assert.equal(server.name, 'tools/call tell');
  assert.equal(server.traceState, 'vendor=1,other=2');
  const { 'mcp_mesh.queue_ms': queueMs, ...attributes } = server.attributes;
  assert.equal(typeof queueMs, 'number');
  assert.deepEqual(attributes, {
    'mcp.method.name': 'tools/call',
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': 'tell',
    'network.transport': 'tcp',
    'network.protocol.name': 'http',
    'mcp_mesh.call_id': 'call-12345',
    'mcp_mesh.attempts': 1,
    'jsonrpc.request.id': '0',
  });
  assert.deepEqual(client.attributes, {
    'mcp.method.name': 'tools/call',
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': 'tell',
    'network.transport': 'pipe',
    'mcp.protocol.version': worker.worker.host.server.info?.protocolVersion,
    'mcp_mesh.child.pid': worker.worker.host.server.pid,
    'mcp_mesh.child.generation': 1,
  });
  assert.equal(server.resource['service.name'], 'mcp-mesh-worker-wiretap');
  assert.ok(
    server.startMs <= client.startMs && client.endMs <= server.endMs,
    'a child lies within its parent',
  );
});

test('the trace in a body goes before that of its HTTP request, which is linked', async t => {
  const receiver = await startReceiver(t);
  const worker = await startTracedWorker(t, { tracing: tracingTo(receiver.url) });
  const client = await connectLegacy(worker.url);
  const header = `00-${OTHER_TRACE}-b7ad6b7169203331-01`;
  const _meta = { progressToken: 'p', traceparent: SAMPLED, baggage: 'k=v', mine: 12345678901234567890n };
  const params = { name: 'tell', arguments: {}, _meta };
  const body = JSON.stringify({ jsonrpc: '2.0', id: 7, method: 'tools/call', params }, (_key, value) =>
    typeof value === 'bigint' ? 'BIG' : value,
  ).replace('"BIG"', '12345678901234567890');
  const { messages } = await post(worker.url, body, {
    ...client.headers,
    traceparent: header,
    baggage: 'from=header',
  });
  const line = messages[0].result.content[0].text as string;
  const { server, client: execution } = pairOf(
    await receiver.wait(2, ({ attributes }) => attributes['mcp.method.name'] === 'tools/call'),
  );
  assert.equal(server.parentSpanId, SPAN);
  assert.equal(server.traceId, TRACE);
  assert.deepEqual(
    server.links.map(({ traceId, spanId }) => [traceId, spanId]),
    [[OTHER_TRACE, 'b7ad6b7169203331']],
  );
  const meta = JSON.parse(line).params._meta;
  assert.equal(meta.traceparent, `00-${TRACE}-${execution.spanId}-01`);
  assert.equal(meta.baggage, 'k=v', 'what came in the body passes, what came by HTTP does not');
  assert.match(line, /"mine":12345678901234567890[,}]/, 'nothing else of the message is touched');
  assert.notEqual(server.attributes['mcp.session.id'], undefined);
  assert.ok(
    !receiver.bodies.join().includes(client.headers['mcp-session-id'] as string),
    'a session id is a credential',
  );
});

test('a state that is left over from another trace goes', async t => {
  const receiver = await startReceiver(t);
  const worker = await startTracedWorker(t, { tracing: tracingTo(receiver.url) });
  const client = await connectLegacy(worker.url);
  for (const _meta of [{ tracestate: 'left=over' }, { tracestate: 'left=over', traceparent: 'nonsense' }]) {
    const body = { jsonrpc: '2.0', id: 7, method: 'tools/call', params: { name: 'tell', _meta } };
    const { messages } = await post(worker.url, body, { ...client.headers, traceparent: SAMPLED });
    const meta = JSON.parse(messages[0].result.content[0].text).params._meta;
    assert.deepEqual(Object.keys(meta), ['traceparent']);
    assert.equal(parseTraceContext(meta.traceparent)?.traceId, TRACE);
  }
});

describe('without tracing', () => {
  test('a trace in the body passes as it is, also one that is malformed', async t => {
    const worker = await startTracedWorker(t);
    const client = await connectLegacy(worker.url);
    for (const traceparent of [SAMPLED, 'nonsense']) {
      const params = { name: 'tell', _meta: { tracestate: 'a=1', traceparent } };
      const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params });
      const headers = { traceparent: `00-${OTHER_TRACE}-${SPAN}-01` };
      const { messages } = await post(worker.url, body, { ...client.headers, ...headers });
      const line = messages[0].result.content[0].text as string;
      assert.equal(line, body.replace('"id":1', `"id":${JSON.parse(line).id}`));
    }
  });

  test('one that came by HTTP goes into the message, a malformed one does not', async t => {
    const worker = await startTracedWorker(t);
    const passed = await worker.tell({ traceparent: SAMPLED, tracestate: 'a=1', baggage: 'secret=1' });
    assert.deepEqual(metaOf(passed), { traceparent: SAMPLED, tracestate: 'a=1' });
    assert.equal(metaOf(await worker.tell()), undefined);
    for (const traceparent of ['00-x', `00-${'0'.repeat(32)}-${SPAN}-01`, `${SAMPLED}, ${SAMPLED}`]) {
      assert.equal(metaOf(await worker.tell({ traceparent, tracestate: 'a=1' })), undefined, traceparent);
    }
  });

  test('nothing of OpenTelemetry’s SDK is loaded by a worker that serves calls', async t => {
    const loaded = async (tracing: string) => {
      const script = fileURLToPath(new URL('./loaded-modules.ts', import.meta.url));
      const { stdout } = await promisify(execFile)(process.execPath, [script, tracing], { timeout: 30_000 });
      return JSON.parse(stdout) as string[];
    };
    assert.deepEqual(await loaded(''), []);
    const receiver = await startReceiver(t);
    const on = await loaded(receiver.url);
    assert.ok(
      on.some(name => name.includes('sdk-trace')),
      'the test would see it',
    );
  });
});

test('the caller’s decision not to record is kept, and handed on', async t => {
  const receiver = await startReceiver(t);
  const worker = await startTracedWorker(t, { tracing: tracingTo(receiver.url) });
  const meta = metaOf(await worker.tell({ traceparent: `00-${TRACE}-${SPAN}-00` }));
  const passed = parseTraceContext(meta?.traceparent);
  assert.equal(passed?.traceId, TRACE);
  assert.equal(passed?.sampled, false);
  await worker.tell({ traceparent: `00-${OTHER_TRACE}-${SPAN}-01` });
  await worker.stop();
  assert.deepEqual([...new Set(receiver.spans.map(({ traceId }) => traceId))], [OTHER_TRACE]);
});

test('a malformed trace is none: a new one begins', async t => {
  const receiver = await startReceiver(t);
  const worker = await startTracedWorker(t, { tracing: tracingTo(receiver.url) });
  const meta = metaOf(await worker.tell({ traceparent: `00-${TRACE}-${SPAN}`, tracestate: 'left=over' }));
  const { server } = pairOf(await receiver.wait(2));
  assert.equal(server.parentSpanId, undefined);
  assert.notEqual(server.traceId, TRACE);
  assert.deepEqual(Object.keys(meta ?? {}), ['traceparent']);
});

test('a share of the traces that begin here is recorded', async t => {
  const receiver = await startReceiver(t);
  const worker = await startTracedWorker(t, { tracing: tracingTo(receiver.url, { ratio: 0 }) });
  const meta = metaOf(await worker.tell());
  assert.equal(parseTraceContext(meta?.traceparent)?.sampled, false);
  await worker.tell({ traceparent: SAMPLED });
  await worker.stop();
  assert.deepEqual([...new Set(receiver.spans.map(({ traceId }) => traceId))], [TRACE]);
});

test('waiting for a place is a span of its own', async t => {
  const receiver = await startReceiver(t);
  const worker = await startTracedWorker(t, {
    tracing: tracingTo(receiver.url),
    service: { concurrency: 1 },
  });
  const slow = () => worker.execute({ command: 'wait', params: { ms: 60 } });
  await Promise.all([slow(), slow()]);
  const [queue] = await receiver.wait(1, ({ name }) => name === 'mcp_mesh.queue');
  const servers = await receiver.wait(2, ({ kind }) => kind === SERVER);
  const parent = servers.find(({ spanId }) => spanId === queue?.parentSpanId);
  assert.ok(parent, 'it belongs to the call that waited');
  assert.ok(Number(parent.attributes['mcp_mesh.queue_ms']) >= 40);
  assert.ok((queue?.endMs ?? 0) - (queue?.startMs ?? 0) >= 40);
  const waited = (await worker.audit()).map(({ queue_ms }) => Number(queue_ms)).sort((a, b) => a - b);
  assert.ok((waited[0] ?? 0) < 40, `${waited}`);
  assert.ok((waited[1] ?? 0) >= 40, `${waited}`);
});

test('a second try is a second execution, with an event that says why', async t => {
  const receiver = await startReceiver(t);
  const TALLY = join(folderOf(t), 'tally');
  const retry = { attempts: 3, base_ms: 10, max_ms: 2000 };
  const worker = await startTracedWorker(t, {
    tracing: tracingTo(receiver.url),
    service: { retry, env: { TALLY } },
  });
  await worker.tell();
  // A tool is tried again when the server's own list says that it may be.
  await worker.worker.host.catalog.hash();
  const { json } = await worker.execute({ command: 'once' });
  const tries = await receiver.wait(2, ({ name, kind }) => name === 'tools/call once' && kind === CLIENT);
  const [server] = await receiver.wait(1, ({ name, kind }) => name === 'tools/call once' && kind === SERVER);
  assert.deepEqual(
    tries.map(({ attributes, status }) => [attributes['error.type'], status === 2]),
    [
      ['child_crashed', true],
      [undefined, false],
    ],
  );
  assert.deepEqual(
    tries.map(({ parentSpanId }) => parentSpanId),
    [server?.spanId, server?.spanId],
  );
  assert.deepEqual(server?.events, [
    { name: 'mcp_mesh.retry', attributes: { 'error.type': 'child_crashed' } },
  ]);
  const traceparent = JSON.parse(json.content[0]?.text ?? '').params._meta.traceparent;
  assert.equal(parseTraceContext(traceparent)?.spanId, tries[1]?.spanId, 'each try has its own context');
  const entry = (await worker.audit()).find(({ name }) => name === 'once');
  assert.equal(entry?.attempts, 2);
  assert.deepEqual(entry?.retried, ['child_crashed']);
  assert.equal(entry?.trace_id, server?.traceId);
  assert.equal(entry?.child_pid, worker.worker.host.server.pid);
  assert.equal(entry?.child_generation, 2);
});

test('failures are told by the conventions’ names, and nobody’s secrets with them', async t => {
  const receiver = await startReceiver(t);
  const worker = await startTracedWorker(t, { tracing: tracingTo(receiver.url) });
  const params = { password: 'secret-in-arguments' };
  const secrets = { authorization: 'Bearer secret-in-header', cookie: 'secret-in-cookie' };
  for (const command of ['fail', 'refuse', 'x'.repeat(5000)]) {
    await worker.execute({ command, params }, { ...secrets, 'mcp-session-id': 'secret-in-session' });
  }
  const uri = 'https://user:secret-in-user@host/path?token=secret-in-query#secret-in-fragment';
  await worker.execute({ command: 'resources/read', params: { uri } });
  const spans = await receiver.wait(8);
  const servers = spans.filter(({ kind }) => kind === SERVER);
  const [failed, refused, long, read] = servers;
  assert.deepEqual([failed?.attributes['error.type'], failed?.status], ['tool_error', 2]);
  assert.deepEqual([refused?.attributes['error.type'], refused?.status], ['-32050', 2]);
  assert.equal(refused?.attributes['rpc.response.status_code'], '-32050');
  assert.equal(long?.name, 'tools/call', 'a name that anybody may choose makes no series');
  assert.equal(String(long?.attributes['gen_ai.tool.name']).length, 256);
  assert.equal(read?.attributes['mcp.resource.uri'], 'https://host/path');
  assert.ok(receiver.bodies.length > 0);
  assert.doesNotMatch(receiver.bodies.join(), /secret-in/);
});

test('a collector that is away costs no call; it is told once, and once that it is back', async t => {
  let status = 503;
  const receiver = await startReceiver(t, { status: () => status });
  const lines: { level: number; msg: string }[] = [];
  const log = pino({ level: 'info' }, { write: line => lines.push(JSON.parse(line)) });
  process.env.OTEL_EXPORTER_OTLP_TRACES_TIMEOUT = '200';
  t.after(() => delete process.env.OTEL_EXPORTER_OTLP_TRACES_TIMEOUT);
  const worker = await startTracedWorker(t, { tracing: tracingTo(receiver.url), log });
  const told = (text: string) => lines.filter(({ msg }) => msg.includes(text)).length;
  while (told('spans cannot be sent') === 0) assert.ok(metaOf(await worker.tell()));
  for (let i = 0; i < 20; i += 1) assert.ok(metaOf(await worker.tell()));
  status = 200;
  while (told('spans can be sent again') === 0) assert.ok(metaOf(await worker.tell()));
  await receiver.wait(2);
  assert.equal(told('spans cannot be sent'), 1);
});

test('spans that nobody takes in time are dropped, not gathered without end', async t => {
  const receiver = await startReceiver(t);
  const tracing = createSpanTracing({ settings: tracingTo(receiver.url), resource: {}, log: () => {} });
  t.after(tracing.close);
  const text = '{"jsonrpc":"2.0","id":1,"method":"ping"}';
  const request = readMessage(text) as RpcRequest;
  const caller = {
    principal: 'p',
    grants: { allow: [{}], deny: [] },
    limits: {},
    callId: 'c',
    vouched: false,
  };
  // In one turn of the event loop, so that nothing can be sent meanwhile.
  for (let i = 0; i < 5000; i += 1) tracing.begin(request, caller).ends({ code: 'timeout' });
  await tracing.close();
  assert.ok(receiver.spans.length >= 2000 && receiver.spans.length < 3000, `${receiver.spans.length} spans`);
});

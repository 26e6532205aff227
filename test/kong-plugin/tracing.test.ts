import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGatewayTracing } from '../../kong-plugin/tracing.ts';
import { parseTraceContext } from '../../mesh/trace-context.ts';
import { type ReceivedSpan, startReceiver } from '../otlp-receiver.ts';
import { until } from '../until.ts';
import { tracingTo } from '../workers/tracing-helpers.ts';
import { startTracedMesh } from './traced-mesh.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';
const SAMPLED = `00-${TRACE}-${SPAN}-01`;

const metaOf = (json: { content: { text: string }[] }) =>
  JSON.parse(json.content[0]?.text ?? '').params._meta as Record<string, string> | undefined;

/** The call's spans from the outermost in, each the parent of the next. */
function chainOf(spans: ReceivedSpan[], root: string | undefined): ReceivedSpan[] {
  const next = spans.find(({ parentSpanId }) => parentSpanId === root);
  return next ? [next, ...chainOf(spans, next.spanId)] : [];
}

test('client → gateway → worker → child: one trace, each the parent of the next', async t => {
  const receiver = await startReceiver(t);
  const mesh = await startTracedMesh(t, { spans: { gateway: receiver.url, workers: receiver.url } });
  const { json, callId } = await mesh.execute(
    { command: 'tell' },
    { traceparent: SAMPLED, tracestate: 'a=1' },
  );
  // A call that had to wait for its place has a span of that, too (1: internal).
  const spans = await receiver.wait(3, ({ traceId, kind }) => traceId === TRACE && kind !== 1);
  const chain = chainOf(spans, SPAN);
  assert.deepEqual(
    chain.map(({ name, resource }) => [resource['service.name'], name]),
    [
      ['mcp-mesh-gateway', 'POST /api/v1/mcp/{service}'],
      ['mcp-mesh-worker-wiretap', 'tools/call tell'],
      ['mcp-mesh-worker-wiretap', 'tools/call tell'],
    ],
  );
  const meta = metaOf(json);
  assert.equal(meta?.traceparent, `00-${TRACE}-${chain[2]?.spanId}-01`);
  assert.equal(meta?.tracestate, 'a=1');
  const [gateway] = chain;
  const instance = mesh.workers[0]?.instance;
  const { 'mcp_mesh.kong_ms': kongMs, ...attributes } = gateway?.attributes ?? {};
  assert.equal(typeof kongMs, 'number');
  assert.deepEqual(attributes, {
    'http.request.method': 'POST',
    'http.route': '/api/v1/mcp/{service}',
    'url.path': '/api/v1/mcp/wiretap/execute',
    'http.response.status_code': 200,
    'mcp_mesh.call_id': callId,
    'mcp_mesh.service': 'wiretap',
    'mcp_mesh.tries': [`${instance} answered`],
  });
  assert.ok(
    (gateway?.endMs ?? 0) >= (gateway?.startMs ?? Number.MAX_VALUE),
    'it lasted as long as Kong says',
  );
});

test('without a caller’s trace the gateway begins one; a stray state does not get into it', async t => {
  const receiver = await startReceiver(t);
  const mesh = await startTracedMesh(t, { spans: { gateway: receiver.url } });
  const { json } = await mesh.execute(
    { command: 'tell' },
    { traceparent: 'nonsense', tracestate: 'stray=1' },
  );
  const [gateway] = await receiver.wait(1);
  assert.equal(gateway?.parentSpanId, undefined);
  // The worker does not trace: it hands on what it got.
  assert.deepEqual(metaOf(json), { traceparent: `00-${gateway?.traceId}-${gateway?.spanId}-01` });
});

test('a gateway that stops sends the spans that it has gathered', async t => {
  const receiver = await startReceiver(t);
  // Longer than this test may take: nothing sends them but the end.
  const mesh = await startTracedMesh(t, { spans: { gateway: receiver.url }, flushMs: 600_000 });
  const { callId } = await mesh.execute({ command: 'tell' });
  await until('the log phase', async () =>
    /gateway_requests_total\{[^}]*"wiretap"/.test(await (await fetch(`${mesh.metricsUrl}/metrics`)).text()),
  );
  assert.equal(receiver.spans.length, 0);
  await mesh.stopGateway();
  assert.deepEqual(
    receiver.spans.map(({ attributes }) => attributes['mcp_mesh.call_id']),
    [callId],
  );
});

test('a caller who does not record is followed, through to the child', async t => {
  const receiver = await startReceiver(t);
  const mesh = await startTracedMesh(t, { spans: { gateway: receiver.url, workers: receiver.url } });
  const { json } = await mesh.execute({ command: 'tell' }, { traceparent: `00-${TRACE}-${SPAN}-00` });
  const passed = parseTraceContext(metaOf(json)?.traceparent);
  assert.equal(passed?.traceId, TRACE);
  assert.equal(passed?.sampled, false);
  await mesh.execute({ command: 'tell' });
  // Later spans come last: the first ones would be here by now.
  await receiver.wait(3);
  assert.equal(receiver.spans.filter(({ traceId }) => traceId === TRACE).length, 0);
});

test('without tracing a caller’s headers pass the gateway as they are', async t => {
  const mesh = await startTracedMesh(t);
  const { json } = await mesh.execute({ command: 'tell' }, { traceparent: SAMPLED, tracestate: 'a=1' });
  assert.deepEqual(metaOf(json), { traceparent: SAMPLED, tracestate: 'a=1' });
});

test('a collector that is away keeps no call and no span', async t => {
  let status = 503;
  const receiver = await startReceiver(t, { status: () => status });
  const told: string[] = [];
  process.env.OTEL_EXPORTER_OTLP_TRACES_TIMEOUT = '200';
  t.after(() => delete process.env.OTEL_EXPORTER_OTLP_TRACES_TIMEOUT);
  const tracing = createGatewayTracing(tracingTo(receiver.url), text => told.push(text));
  t.after(tracing.close);
  const request = {
    method: 'POST',
    path: '/',
    query: '',
    clientIp: '',
    headers: {},
    allHeaders: {},
    body: '',
  };
  const finish = () => {
    const { record } = tracing.begin(request);
    const times = { startedAt: Date.now(), kongMs: 1, latencyMs: 2, answeredMs: 1 };
    const trace = { ...record, method: 'POST', path: '/', ...times };
    tracing.end({
      callId: 'c',
      lease: 'l',
      service: 's',
      status: 200,
      tries: [],
      report: undefined,
      ...times,
      trace,
    });
  };
  finish();
  while (told.length === 0) await new Promise(resolve => setTimeout(resolve, 20));
  assert.match(told[0] ?? '', /^spans cannot be sent to http/);
  for (let i = 0; i < 20_000; i += 1) finish();
  status = 200;
  await tracing.close();
  assert.ok(receiver.spans.length < 3000, `${receiver.spans.length} of 20,000 were kept`);
});

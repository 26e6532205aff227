import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RpcRequest, type RpcResponse, readChildMessage, readMessage } from '../../mesh/jsonrpc.ts';
import { SessionStore } from '../../workers/legacy/session-store.ts';
import type { CallResult } from '../../workers/metrics/calls.ts';
import type { MeasuredServer } from '../../workers/metrics/server.ts';
import { createWorkerMetrics, type WorkerMetrics, type WorkerSources } from '../../workers/metrics.ts';
import { seriesCount, valuesOf } from '../observability/metrics-text.ts';
import { until } from '../until.ts';
import { ready, scriptedService, startTestWorker, type TestWorker, toolCall } from './helpers.ts';

test('calls of tools are counted by tool and outcome; what the server does not list is "other"', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const call = await worker.connect();
  await untilListed(worker);
  await call(toolCall(1, 'echo', { text: 'hi' }));
  await call(toolCall(2, 'rpc-error'));
  await worker.post('/tools/echo', {});
  const before = seriesCount(await scrape(worker));
  await call(toolCall(3, 'no-such-tool'));
  const once = seriesCount(await scrape(worker));
  for (let i = 0; i < 50; i += 1) await call(toolCall(i + 4, `made-up-${i}"} 1\n`));
  const text = await scrape(worker);
  assert.equal(seriesCount(text), once, 'a name that nobody lists has made a series');
  assert.ok(once > before);
  const calls = valuesOf(text, 'mcp_mesh_worker_tool_calls_total');
  assert.equal(calls.find(({ labels }) => labels.tool === 'rpc-error')?.labels.outcome, 'server_error');
  assert.equal(sumOf(text, 'tool_calls_total', { tool: 'other' }), 51);
  assert.equal(sumOf(text, 'tool_call_duration_seconds_count', { tool: 'rpc-error', outcome: 'error' }), 1);
  assert.doesNotMatch(text, /made-up/);
});

test('a crash is an error by its code, a restart by its reason, and the next call runs', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const { status } = await worker.post('/execute', { command: 'crash' });
  assert.equal(status, 502);
  const text = await scrape(worker);
  assert.equal(sumOf(text, 'errors_total', { code: 'child_crashed' }), 1);
  await ready(worker);
  const after = await scrape(worker);
  assert.equal(sumOf(after, 'child_restarts_total', { reason: 'exit' }), 1);
  assert.equal(sumOf(after, 'child_restarts_total', { reason: 'oom' }), 0);
  assert.equal(valuesOf(after, 'mcp_mesh_worker_child_restarts_total').length, 8, 'zeros for all reasons');
  assert.equal(sumOf(after, 'child_up', {}), 1);
  const [info] = valuesOf(after, 'mcp_mesh_worker_child_info');
  assert.deepEqual(
    [info?.labels.name, info?.labels.version, info?.labels.era],
    ['scripted', '1.2.3', 'legacy'],
  );
});

test('who waits for a place shows in the queue, and its waiting apart from the execution', async t => {
  const worker = await startTestWorker(t, scriptedService('', { concurrency: 1, queue: 7 }));
  await ready(worker);
  const first = worker.post('/execute', { command: 'slow', params: { ms: 300 } });
  await untilScraped(worker, text => sumOf(text, 'in_flight', {}) === 1);
  const second = worker.post('/execute', { command: 'slow', params: { ms: 1 } });
  await untilScraped(worker, text => sumOf(text, 'queue_depth', {}) === 1);
  await Promise.all([first, second]);
  const text = await scrape(worker);
  assert.equal(sumOf(text, 'queue_wait_seconds_count', {}), 2);
  assert.ok(sumOf(text, 'queue_wait_seconds_sum', {}) > 0);
  assert.ok(sumOf(text, 'execution_seconds_sum', {}) >= 0.3);
  assert.deepEqual(
    [sumOf(text, 'concurrency_limit', {}), sumOf(text, 'queue_limit', {}), sumOf(text, 'queue_depth', {})],
    [1, 7, 0],
  );
  assert.ok(sumOf(text, 'message_bytes_total', { direction: 'out' }) > 0);
});

test('sessions and streams are numbers, not series', async t => {
  const worker = await startTestWorker(t, scriptedService());
  await ready(worker);
  const before = seriesCount(await scrape(worker));
  const calls = await Promise.all(Array.from({ length: 20 }, () => worker.connect()));
  await Promise.all(calls.map(call => call({ jsonrpc: '2.0', id: 1, method: 'ping' })));
  const text = await scrape(worker);
  assert.equal(sumOf(text, 'sessions', {}), 20);
  assert.equal(seriesCount(text), before);
});

test('10,000 sessions, and calls by any tool and method, leave the number of series bounded', async () => {
  const store = new SessionStore(() => 'owner');
  const { metrics } = setUp({ sessions: store });
  for (let i = 0; i < 10_000; i += 1) {
    store.of({
      id: `s${i}`,
      principal: `key:${i}`,
      protocolVersion: '2025-11-25',
      capabilities: {},
    } as never);
    metrics.called(request(`tool-${i}`), result({ isListed: () => true }));
    metrics.observe(`method/${i}`, 'ok', 0.001);
  }
  const text = await metrics.expose();
  store.stop();
  assert.equal(sumOf(text, 'sessions', {}), 10_000);
  const tools = new Set(valuesOf(text, 'mcp_mesh_worker_tool_calls_total').map(({ labels }) => labels.tool));
  assert.equal(tools.size, 201, '200 names, and all others together');
  assert.equal(sumOf(text, 'tool_calls_total', {}), 10_000);
  assert.equal(
    new Set(
      valuesOf(text, 'mcp_mesh_worker_request_duration_seconds_count').map(({ labels }) => labels.method),
    ).size,
    1,
  );
  assert.ok(seriesCount(text) < 200 * 40, `${seriesCount(text)} series`);
});

test('a listed name that is too long is no label, and neither is a version of a megabyte', async () => {
  const huge = 'v'.repeat(1_000_000);
  const { metrics } = setUp(
    {},
    { info: { serverInfo: { name: huge, version: huge }, era: 'legacy', protocolVersion: huge } as never },
  );
  metrics.called(request('x'.repeat(129)), result({ isListed: () => true }));
  metrics.called(request('x'.repeat(128)), result({ isListed: () => true }));
  const text = await metrics.expose();
  assert.equal(sumOf(text, 'tool_calls_total', { tool: 'other' }), 1);
  assert.equal(sumOf(text, 'tool_calls_total', { tool: 'x'.repeat(128) }), 1);
  assert.ok(text.length < 100_000, `${text.length} characters`);
});

const answerOf = (text: string) => (readChildMessage(text) as RpcResponse).answer;

test('outcomes are told by the answer itself', async () => {
  const { metrics } = setUp();
  const outcomes: [string | undefined, CallResult['error'], string][] = [
    ['{"jsonrpc":"2.0","id":1,"result":{"content":[]}}', undefined, 'ok'],
    ['{"result":{"content":[],"isError":true},"id":1,"jsonrpc":"2.0"}', undefined, 'tool_error'],
    ['{"jsonrpc":"2.0","id":1,"result":{"isError" : true}}', undefined, 'tool_error'],
    ['{"jsonrpc":"2.0","id":1,"result":{"isError":false}}', undefined, 'ok'],
    ['{"jsonrpc":"2.0","id":1,"result":{"content":[{"text":"say \\"isError\\":true"}]}}', undefined, 'ok'],
    [
      '{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"error":"none","isError":true}}}',
      undefined,
      'ok',
    ],
    ['{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}', undefined, 'server_error'],
    [undefined, 'quota_exceeded', 'quota_exceeded'],
  ];
  for (const [text, error, outcome] of outcomes) {
    const tool = `t${outcomes.findIndex(entry => entry[0] === text && entry[1] === error)}`;
    const answered = text === undefined ? undefined : answerOf(text);
    metrics.called(request(tool), result({ answered, error, isListed: () => true }));
    const found = valuesOf(await metrics.expose(), 'mcp_mesh_worker_tool_calls_total').find(
      ({ labels }) => labels.tool === tool,
    );
    assert.equal(found?.labels.outcome, outcome, text);
  }
});

test('a further round is no further call, but its failure is an error; units and warnings add up', async () => {
  const { metrics } = setUp();
  metrics.called(request('a'), result({ units: 5, nearEnd: true }));
  metrics.called(
    request('a'),
    result({ continued: true, error: 'timeout', answered: undefined, bytesOut: 0 }),
  );
  const text = await metrics.expose();
  assert.equal(sumOf(text, 'tool_calls_total', {}), 1);
  assert.equal(sumOf(text, 'errors_total', { code: 'timeout' }), 1);
  assert.deepEqual([sumOf(text, 'quota_units_total', {}), sumOf(text, 'quota_near_end_total', {})], [5, 1]);
});

test('processor time never falls: not when a process ends, not with the next run', async () => {
  const stats = { ...STATS, generation: 1, cpuSeconds: 10 };
  const { metrics } = setUp({}, { stats });
  const seen: number[] = [];
  for (const [generation, cpuSeconds] of [
    [1, 10],
    [1, 12],
    [1, 11],
    [1, 13],
    [2, 1],
    [2, 4],
  ] as const) {
    Object.assign(stats, { generation, cpuSeconds });
    seen.push(sumOf(await metrics.expose(), 'child_cpu_seconds_total', {}));
  }
  assert.deepEqual(seen, [10, 12, 12, 14, 15, 18]);
});

test('time limits are told for each tool that was called', async () => {
  const service = { ...SOURCES.service, timeout_ms: 60_000, tool_timeouts: { quick: 500 } };
  const { metrics } = setUp({ service });
  for (const tool of ['quick', 'usual', 'constructor'])
    metrics.called(request(tool), result({ isListed: () => true }));
  const limits = valuesOf(await metrics.expose(), 'mcp_mesh_worker_tool_timeout_seconds');
  assert.deepEqual(Object.fromEntries(limits.map(({ labels, value }) => [labels.tool, value])), {
    other: 60,
    quick: 0.5,
    usual: 60,
    constructor: 60,
  });
});

const STATS: MeasuredServer['stats'] = {
  pid: 1,
  generation: 1,
  restarts: { spawn: 0, exit: 0, signal: 0, oom: 0, processes: 0, hung: 0, handshake: 0, recycle: 0 },
  rssBytes: 1,
  cpuSeconds: 1,
  processes: 1,
  uptimeSeconds: 1,
  parked: false,
  lastError: undefined,
};
const SOURCES: WorkerSources = {
  service: { ...scriptedService(), timeout_ms: 60_000, tool_timeouts: {} },
  sessions: { size: 0, streams: 0 },
  listens: { size: 0 },
  pool: { size: 0 },
  audit: undefined,
};

function setUp(
  sources: Partial<WorkerSources> = {},
  server: Partial<MeasuredServer> = {},
): { metrics: WorkerMetrics } {
  const metrics = createWorkerMetrics({
    service: 'unit',
    server: { state: 'ready', stats: STATS, info: undefined, breakerOpen: false, ...server },
    inFlight: () => 0,
    queued: () => 0,
  });
  metrics.follow({ ...SOURCES, ...sources });
  return { metrics };
}

function request(tool: string): RpcRequest {
  return readMessage(JSON.stringify(toolCall(1, tool))) as RpcRequest;
}

function result(of: Partial<CallResult>): CallResult {
  return {
    answered: 'ok',
    bytesOut: 13,
    error: undefined,
    seconds: 0.01,
    continued: false,
    units: 0,
    nearEnd: false,
    isListed: () => false,
    ...of,
  };
}

async function scrape({ url }: TestWorker): Promise<string> {
  return (await fetch(`${url}/metrics`)).text();
}

function sumOf(text: string, name: string, wanted: Record<string, string>): number {
  return valuesOf(text, `mcp_mesh_worker_${name}`)
    .filter(({ labels }) => Object.entries(wanted).every(([key, value]) => labels[key] === value))
    .reduce((sum, { value }) => sum + value, 0);
}

async function untilScraped(worker: TestWorker, holds: (text: string) => boolean): Promise<void> {
  await until(String(holds), async () => holds(await scrape(worker)));
}

/** The server's list is asked for with the first call, which does not wait for it. */
async function untilListed(worker: TestWorker): Promise<void> {
  await untilScraped(worker, text => {
    void worker.post('/execute', { command: 'pid' });
    return sumOf(text, 'tool_calls_total', { tool: 'pid' }) > 0;
  });
  await untilScraped(worker, text => sumOf(text, 'in_flight', {}) === 0);
}

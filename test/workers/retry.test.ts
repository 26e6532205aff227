import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { type ErrorCode, MeshError } from '../../mesh/errors.ts';
import { isObject, type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import type { Service } from '../../mesh/registry.ts';
import { createLoadMeter } from '../../workers/load.ts';
import { createWorkerMetrics } from '../../workers/metrics.ts';
import { Relay, type RelayOptions, type Upstream } from '../../workers/relay.ts';
import { backoffMs, isSafe, Retries, saysRepeatable } from '../../workers/retry.ts';
import { StdioServer } from '../../workers/stdio-server.ts';
import { until } from '../until.ts';
import {
  type Answer,
  ready,
  scriptedService,
  silentLog,
  startTestWorker,
  type TestWorker,
  toolCall,
} from './helpers.ts';
import { connectLegacy, connectModern, metric } from './hostile/helpers.ts';

/** Waits for days. */
const ENDLESS = { retry: { attempts: 2, base_ms: 1e9, max_ms: 1e9 }, timeout_ms: 2e9 };

interface Counted {
  service: Service;
  /** Executions so far, of all runs of the server together. */
  executions(): number;
}

/** A service whose server counts executions in a file, so that a second one is seen even after a crash. */
function countedService(t: TestContext, overrides: Partial<Service> = {}, mode = ''): Counted {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-retry-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'tally');
  const service = scriptedService(mode, overrides);
  return {
    service: { ...service, env: { ...service.env, TALLY: file } },
    executions: () => (existsSync(file) ? readFileSync(file, 'utf8').length : 0),
  };
}

async function startReady(t: TestContext, service: Service): Promise<TestWorker> {
  const worker = await startTestWorker(t, service, { drainDeadlineMs: 20_000 });
  await ready(worker);
  return worker;
}

async function killServer(worker: TestWorker): Promise<void> {
  const { json } = await worker.post('/execute', { command: 'pid' });
  process.kill(Number(json.content[0].text), 'SIGKILL');
}

const isDown = async (worker: TestWorker) => {
  const response = await fetch(`${worker.url}/health`);
  await response.text();
  return !response.ok;
};

const read = (worker: TestWorker, hangs: number) =>
  worker.post('/execute', { command: 'resources/read', params: { uri: 'x:y', hangs } });

/** By reason; empty when there were none. */
async function retries(worker: TestWorker): Promise<Record<string, number>> {
  const text = await (await fetch(`${worker.url}/metrics`)).text();
  const lines = text.matchAll(/^mcp_mesh_worker_retries_total\{.*reason="(\w+)".*\} (\d+)$/gm);
  return Object.fromEntries([...lines].map(([, reason, count]) => [reason, Number(count)]));
}

async function cancel(call: Awaited<ReturnType<TestWorker['connect']>>, ids: number[]): Promise<void> {
  for (const requestId of ids)
    await call({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId } });
}

/** The messages of an answer that became a stream, or the one that it is. */
const messagesOf = ({ json, text }: Answer) =>
  json ? [json] : [...text.matchAll(/^data: (.+)$/gm)].map(([, data]) => JSON.parse(data ?? ''));
const failureOf = (answer: Answer) => {
  const data = messagesOf(answer).at(-1).error?.data;
  return [data?.code, data?.delivered];
};

const resourceRead = (id: number, hangs: number, meta?: object) => ({
  jsonrpc: '2.0',
  id,
  method: 'resources/read',
  params: { uri: 'x:y', hangs, ...(meta ? { _meta: meta } : {}) },
});

describe('what may run twice is answered after the crash that ended it', () => {
  test('a read, counted once', async t => {
    const { service, executions } = countedService(t);
    const worker = await startReady(t, service);
    const pending = read(worker, 1);
    await until(() => executions() === 1);
    await killServer(worker);
    const { status, json } = await pending;
    assert.deepEqual([status, json.contents?.[0].text], [200, '2'], JSON.stringify(json));
    assert.ok(((await retries(worker)).child_crashed ?? 0) >= 1);
    const text = await (await fetch(`${worker.url}/metrics`)).text();
    assert.match(text, /_seconds_count\{service="scripted",method="resources\/read",outcome="ok"\} 1\n/);
    assert.doesNotMatch(text, /method="resources\/read",outcome="child/);
    assert.equal(await metric(worker.url, 'queue_depth'), 0);
  });

  test('for clients of both eras, under their own ids', async t => {
    const { service, executions } = countedService(t);
    const worker = await startReady(t, service);
    const params = { uri: 'x:y', hangs: 2 };
    const inside = [
      (await connectLegacy(worker.url)).request(41, 'resources/read', params),
      connectModern(worker.url).request('m', 'resources/read', params),
    ];
    await until(() => executions() === 2);
    await killServer(worker);
    const messages = (await Promise.all(inside)).flatMap(exchange => exchange.messages);
    assert.deepEqual(
      messages.map(({ id }) => id),
      [41, 'm'],
    );
    const texts = messages.map(({ result }) => result?.contents[0].text);
    assert.deepEqual(texts.toSorted(), ['3', '4'], JSON.stringify(messages));
  });

  test('one crash with many calls in it is one failure for the breaker', async t => {
    const circuit_breaker = { failure_threshold: 2, recovery_timeout: 300 };
    const { service, executions } = countedService(t, { circuit_breaker });
    const worker = await startReady(t, service);
    const inside = Array.from({ length: 8 }, () => read(worker, 8));
    await until(() => executions() === 8);
    await killServer(worker);
    const answers = await Promise.all(inside);
    assert.deepEqual(
      answers.map(({ status }) => status),
      Array(8).fill(200),
      JSON.stringify(answers[0]?.json),
    );
    assert.equal(executions(), 16);
  });
});

test('two crashes with many calls in each are two failures', async t => {
  const circuit_breaker = { failure_threshold: 2, recovery_timeout: 300 };
  const { service, executions } = countedService(t, { circuit_breaker });
  const worker = await startReady(t, service);
  for (const crash of [1, 2]) {
    await ready(worker);
    const inside = Array.from({ length: 3 }, () => worker.post('/tools/tally', { hangs: 6 }));
    await until(() => executions() === 3 * crash);
    inside.push(worker.post('/tools/crash', {}));
    for (const { json } of await Promise.all(inside)) assert.equal(json.code, 'child_crashed');
  }
  assert.equal((await worker.post('/execute', { command: 'echo' })).json.code, 'circuit_open');
});

describe('what may not run twice does not', () => {
  const crashed = async (t: TestContext, send: (worker: TestWorker) => ReturnType<TestWorker['post']>) => {
    const { service, executions } = countedService(t);
    const worker = await startReady(t, service);
    const pending = send(worker);
    await until(() => executions() === 1);
    await killServer(worker);
    const answer = await pending;
    await ready(worker);
    return { answer, count: executions(), retried: await retries(worker) };
  };

  test('a tool that does not say that it may', async t => {
    const { answer, count, retried } = await crashed(t, worker => worker.post('/tools/tally', { hangs: 1 }));
    assert.deepEqual(
      [answer.json.code, answer.json.delivered, count, retried],
      ['child_crashed', 'unknown', 1, {}],
    );
  });

  test('a read whose progress the client has seen', async t => {
    const { answer, count, retried } = await crashed(t, async worker =>
      (await worker.connect())(resourceRead(1, 1, { progressToken: 'p' })),
    );
    const [first, ...more] = messagesOf(answer);
    assert.deepEqual([first.method, more.length], ['notifications/progress', 1]);
    assert.deepEqual(failureOf(answer), ['child_crashed', 'unknown']);
    assert.deepEqual([count, retried], [1, {}]);
  });

  test('anything with attempts: 1', async t => {
    const { service, executions } = countedService(t, { retry: { attempts: 1, base_ms: 1, max_ms: 1 } });
    const worker = await startReady(t, service);
    const pending = read(worker, 1);
    await until(() => executions() === 1);
    await killServer(worker);
    await until(() => isDown(worker));
    const refused = await worker.post('/execute', { command: 'echo' });
    assert.deepEqual([refused.json.code, refused.json.delivered], ['child_unavailable', 'no']);
    const { json } = await pending;
    assert.deepEqual([json.code, json.delivered, executions()], ['child_crashed', 'unknown', 1]);
    assert.deepEqual(await retries(worker), {});
  });

  test('anything on a session’s own server, which is gone with it', async t => {
    const { service, executions } = countedService(t, { isolation: 'session' });
    const worker = await startReady(t, service);
    const call = await worker.connect();
    const pid = (await call(toolCall(1, 'pid'))).json.result.content[0].text;
    const pending = call(resourceRead(2, 1));
    await until(() => executions() === 1);
    process.kill(Number(pid), 'SIGKILL');
    assert.deepEqual(failureOf(await pending), ['child_crashed', 'unknown']);
    assert.deepEqual([executions(), await retries(worker)], [1, {}]);
  });
});

describe('while the server is started again', () => {
  test('a call waits for it, whatever it does: nothing of it was delivered', async t => {
    const { service, executions } = countedService(t);
    const worker = await startReady(t, service);
    await killServer(worker);
    await until(() => isDown(worker));
    const { status, json } = await worker.post('/tools/tally', {});
    assert.deepEqual([status, json.content?.[0].text], [200, '1'], JSON.stringify(json));
    assert.equal(executions(), 1);
    assert.deepEqual(await retries(worker), { child_unavailable: 1 });
  });

  test('a call that cannot wait that long is refused at once, with the time to come back', async t => {
    const { service } = countedService(t, { tool_timeouts: { echo: 300 } });
    const worker = await startReady(t, service);
    await killServer(worker);
    await until(() => isDown(worker));
    const { json, headers } = await worker.post('/execute', { command: 'echo' });
    assert.deepEqual([json.code, json.delivered], ['child_unavailable', 'no']);
    assert.ok(json.retry_after_ms > 300 && Number(headers.get('retry-after')) >= 1);
    assert.deepEqual(await retries(worker), {});
  });

  test('its own time limit ends the waiting, and the error tells what may have been delivered', async t => {
    const retry = { attempts: 10, base_ms: 20, max_ms: 100 };
    const { service, executions } = countedService(t, { retry, timeout_ms: 1500 }, 'die-later');
    const worker = await startReady(t, service);
    const pending = read(worker, 1);
    await until(() => executions() === 1);
    await killServer(worker);
    const { json } = await pending;
    // The last try found no server, but the first one did.
    assert.deepEqual([json.code, json.delivered, executions()], ['child_unavailable', 'unknown', 1]);
    assert.ok(Object.values(await retries(worker)).reduce((sum, count) => sum + count) < 9);
  });

  test('a client that cancels ends the waiting', async t => {
    const { service, executions } = countedService(t, ENDLESS, 'die-later');
    const worker = await startReady(t, service);
    const call = await worker.connect();
    const reading = call(resourceRead(1, 1));
    await until(() => executions() === 1);
    await killServer(worker);
    await until(() => isDown(worker));
    const calling = call(toolCall(2, 'tally'));
    await until(async () => (await metric(worker.url, 'queue_depth')) === 2);
    await cancel(call, [1, 2]);
    assert.deepEqual(failureOf(await reading), ['cancelled', 'unknown']);
    assert.deepEqual(failureOf(await calling), ['cancelled', 'no']);
    assert.equal(await metric(worker.url, 'queue_depth'), 0);
    assert.equal(executions(), 1);
  });

  test('waiting takes no place in the server, and only so many calls may wait', async t => {
    const bounds = { concurrency: 2, queue: 0 };
    const { service, executions } = countedService(t, { ...ENDLESS, ...bounds }, 'die-later');
    const worker = await startReady(t, service);
    const call = await worker.connect();
    const reading = call(resourceRead(1, 1));
    await until(() => executions() === 1);
    await killServer(worker);
    await until(() => isDown(worker));
    const waiting = call(toolCall(2, 'echo'));
    await until(async () => (await metric(worker.url, 'queue_depth')) === 2);
    // Two wait: were they in their places, it would be queue_full.
    const { json } = await worker.post('/execute', { command: 'echo' });
    assert.equal(json.code, 'child_unavailable');
    await cancel(call, [1, 2]);
    await Promise.all([reading, waiting]);
  });

  test('a worker that is asked to stop answers what waits', async t => {
    const { service } = countedService(t);
    const worker = await startReady(t, service);
    await killServer(worker);
    await until(() => isDown(worker));
    const pending = worker.post('/execute', { command: 'echo', params: { text: 'not lost' } });
    await until(async () => (await metric(worker.url, 'queue_depth')) === 1);
    await worker.stop();
    assert.equal((await pending).json.content?.[0].text, 'not lost');
  });
});

describe('a tool may run twice if its own annotations say so', () => {
  /** A relay with a real server whose tools are known, as a worker knows them. */
  async function startRelay(t: TestContext, service: Service) {
    let pid = 0;
    let became = () => {};
    const isReady = new Promise<void>(resolve => {
      became = resolve;
    });
    const server: StdioServer = new StdioServer({
      service,
      log: silentLog,
      handshakeTimeoutMs: 10_000,
      onState(state) {
        if (state === 'ready') became();
      },
    });
    server.start();
    t.after(() => server.stop());
    await isReady;
    pid = server.pid ?? 0;
    const { value } = await server.ask('tools/list', {}, { timeoutMs: 5000 });
    const { tools } = value.result as { tools: unknown[] };
    const repeatable = tools
      .filter(isObject)
      .filter(saysRepeatable)
      .map(({ name }) => name);
    const queued = () => 0;
    const inFlight = () => server.inFlight;
    const metrics = createWorkerMetrics({ service: service.name, server, inFlight, queued });
    const load = createLoadMeter({
      memoryLimitMb: 1024,
      serverBytes: () => 0,
      inFlight,
      queueDepth: queued,
      breakerOpen: () => server.breakerOpen,
    });
    t.after(() => load.stop());
    const isRepeatable = (upstream: Upstream, tool: string) =>
      upstream === server && repeatable.includes(tool);
    const relay = new Relay({ service, metrics, load, isRepeatable });
    const call = (message: object, options: Partial<RelayOptions> = {}) =>
      relay.call(server, readMessage(JSON.stringify(message)) as RpcRequest, { principal: 'p', ...options });
    return { call, kill: () => process.kill(pid, 'SIGKILL') };
  }

  for (const tool of ['tally-idempotent', 'tally-readonly']) {
    test(tool, async t => {
      const { service, executions } = countedService(t);
      const { call, kill } = await startRelay(t, service);
      const pending = call(toolCall(7, tool, { hangs: 1 }));
      await until(() => executions() === 1);
      kill();
      assert.equal(JSON.parse((await pending).toString()).result.content[0].text, '2');
    });
  }

  const never: { desc: string; message: object; options?: Partial<RelayOptions> }[] = [
    { desc: 'no annotations', message: toolCall(1, 'tally', { hangs: 1 }) },
    {
      desc: 'it asks for logs, which a second such call could get instead',
      message: toolCall(1, 'tally-idempotent', { hangs: 1 }),
      options: { wantsLogs: true },
    },
    {
      desc: 'its progress was passed on',
      message: toolCall(1, 'tally-idempotent', { hangs: 1 }, { progressToken: 1 }),
      options: { onNotification: () => {} },
    },
  ];
  for (const { desc, message, options } of never) {
    test(`not: ${desc}`, async t => {
      const { service, executions } = countedService(t);
      const { call, kill } = await startRelay(t, service);
      const rejected = assert.rejects(call(message, options), {
        code: 'child_crashed',
        delivered: 'unknown',
      });
      await until(() => executions() === 1);
      kill();
      await rejected;
      assert.equal(executions(), 1);
    });
  }
});

test('a worker learns it from its server’s tool list, at the first call of a tool', async t => {
  const { service, executions } = countedService(t);
  const worker = await startReady(t, service);
  await worker.post('/tools/echo', {});
  const pending = worker.post('/tools/tally-idempotent', { hangs: 1 });
  await until(() => executions() === 1);
  await killServer(worker);
  assert.equal((await pending).json.content?.[0].text, '2');
});

describe('which errors lead to another try', () => {
  const cases: { code: ErrorCode; delivered: 'no' | 'unknown' | 'yes'; safe?: boolean; tries: number }[] = [
    { code: 'child_unavailable', delivered: 'no', safe: false, tries: 3 },
    { code: 'child_crashed', delivered: 'unknown', tries: 3 },
    { code: 'child_crashed', delivered: 'unknown', safe: false, tries: 1 },
    { code: 'protocol_error', delivered: 'unknown', tries: 3 },
    { code: 'protocol_error', delivered: 'yes', tries: 1 },
    { code: 'timeout', delivered: 'unknown', tries: 1 },
    { code: 'timeout', delivered: 'no', tries: 1 },
    { code: 'circuit_open', delivered: 'no', tries: 1 },
    { code: 'queue_full', delivered: 'no', tries: 1 },
    { code: 'cancelled', delivered: 'no', tries: 1 },
    { code: 'invalid_request', delivered: 'no', tries: 1 },
    { code: 'internal', delivered: 'unknown', tries: 1 },
  ];
  const policy = { attempts: 3, base_ms: 1, max_ms: 4 };
  const info = {
    era: 'legacy' as const,
    protocolVersion: '',
    capabilities: {},
    serverInfo: { name: '', version: '' },
  };
  const callOf = (server: Partial<Upstream>, safe = true) => ({
    server: { info, ...server },
    safe,
    deadline: performance.now() + 30_000,
    begun: () => false,
  });
  const triesOf = async (call: ReturnType<typeof callOf>, error: MeshError, onTry = () => {}) => {
    const reasons: string[] = [];
    const retries = new Retries({ policy, room: 1, onRetry: reason => reasons.push(reason) });
    let tries = 0;
    await assert.rejects(
      retries.run(call, () => {
        tries += 1;
        onTry();
        return Promise.reject(error);
      }),
      { code: error.code, delivered: error.delivered },
    );
    assert.deepEqual([reasons, retries.waiting], [Array(tries - 1).fill(error.code), 0]);
    return tries;
  };

  for (const { code, delivered, safe = true, tries } of cases) {
    test(`${code}, delivered ${delivered}, ${safe ? 'safe' : 'not safe'}: ${tries}`, async () => {
      const error = new MeshError(code, { delivered });
      assert.equal(await triesOf(callOf({ state: 'ready' }, safe), error), tries);
    });
  }

  const gone = new MeshError('child_unavailable', { delivered: 'no' });

  test('none for a server that is not started again, or was never up, or has been stopped', async () => {
    assert.equal(await triesOf(callOf({}), gone), 1);
    assert.equal(await triesOf(callOf({ state: 'starting', info: undefined }), gone), 1);
    assert.equal(await triesOf(callOf({ state: 'stopped' }), gone), 1);
  });

  test('none once the server has come back in another era than the request was written for', async () => {
    const call = callOf({ state: 'ready' });
    const flip = () => {
      call.server = { ...call.server, info: { ...info, era: 'modern' as never } };
    };
    assert.equal(await triesOf(call, gone, flip), 1);
  });

  test('none when the server says that it needs longer than the call has', async () => {
    const error = new MeshError('child_unavailable', { delivered: 'no', retryAfterMs: 3_600_000 });
    assert.equal(await triesOf(callOf({ state: 'ready' }), error), 1);
  });

  test('none after the call’s time, though the wait would have ended before it', async () => {
    const call = { ...callOf({ state: 'ready' }), deadline: performance.now() + 50 };
    // The event loop is held up: the timer of the wait comes late.
    setImmediate(() => {
      for (const end = performance.now() + 80; performance.now() < end; );
    });
    assert.equal(await triesOf(call, gone), 1);
  });
});

test('waits double up to the longest, and are drawn from all of the range', () => {
  const policy = { attempts: 10, base_ms: 100, max_ms: 1000 };
  for (const [number, most] of [100, 200, 400, 800, 1000, 1000].entries()) {
    const drawn = Array.from({ length: 2000 }, () => backoffMs(policy, number + 1));
    assert.ok(Math.max(...drawn) <= most && Math.max(...drawn) > most * 0.9, `${number}`);
    assert.ok(Math.min(...drawn) >= 0 && Math.min(...drawn) < most * 0.1, `${number}`);
  }
});

describe('requests that are safe by contract', () => {
  const requestOf = (method: string, params: object) =>
    readMessage(JSON.stringify({ jsonrpc: '2.0', id: 1, method, params })) as RpcRequest;
  const cases: { method: string; params?: object; safe: boolean }[] = [
    { method: 'tools/list', safe: true },
    { method: 'prompts/get', params: { name: 'constructor' }, safe: true },
    { method: 'resources/read', params: { uri: 'x:y' }, safe: true },
    { method: 'resources/read', params: { uri: 'x:y', requestState: 's' }, safe: false },
    { method: 'tools/call', params: { name: 'known' }, safe: true },
    { method: 'tools/call', params: { name: 'known', inputResponses: {} }, safe: false },
    { method: 'tools/call', params: { name: 'other' }, safe: false },
    { method: 'tools/call', params: { name: ['known'] }, safe: false },
    { method: 'tools/call', safe: false },
    { method: 'logging/setLevel', safe: false },
    { method: 'made/up', safe: false },
  ];
  for (const { method, params = {}, safe } of cases) {
    test(`${method} ${JSON.stringify(params)}: ${safe}`, () => {
      assert.equal(
        isSafe(requestOf(method, params), tool => tool === 'known'),
        safe,
      );
    });
  }

  test('annotations count only when they are literally true', () => {
    const says = (annotations: unknown) => saysRepeatable({ name: 'x', annotations });
    assert.deepEqual([{ readOnlyHint: true }, { idempotentHint: true, destructiveHint: true }].map(says), [
      true,
      true,
    ]);
    for (const annotations of [undefined, null, [], 'readOnlyHint', {}, { readOnlyHint: 'true' }])
      assert.equal(says(annotations), false);
  });
});

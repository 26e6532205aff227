import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { createServer } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createBalancer } from '../../kong-plugin/balancer/balancer.ts';
import type { KnownService } from '../../kong-plugin/discovery.ts';
import { Ejection } from '../../kong-plugin/ejection.ts';
import { type Outcome, readOutcome } from '../../kong-plugin/log.ts';
import { createGatewayMetrics, type GatewaySources } from '../../kong-plugin/metrics.ts';
import { createPolicy } from '../../kong-plugin/policy.ts';
import type { Instance } from '../../mesh/consul.ts';
import { readSamples, seriesCount, valuesOf } from '../observability/metrics-text.ts';
import { freePort } from '../real-program.ts';
import { until } from '../until.ts';

const OUTCOME: Outcome = {
  callId: 'c',
  lease: 'l',
  service: 'shop',
  status: 200,
  tries: [{ instance: 'shop-1', result: 'answered', reason: '' }],
  latencyMs: 20,
  answeredMs: 19,
  report: undefined,
};

test('requests count by status, their time by class of status, listening streams apart', async () => {
  const { metrics, values } = setUp();
  metrics.observe(OUTCOME);
  metrics.observe({ ...OUTCOME, status: 404 });
  metrics.observe({ ...OUTCOME, latencyMs: 600_000, stream: true });
  assert.deepEqual(await values('requests_total', 'status'), { 200: 2, 404: 1 });
  assert.deepEqual(await values('request_duration_seconds_count', 'status_class'), { '2xx': 1, '4xx': 1 });
  assert.deepEqual(await values('request_duration_seconds_sum', 'status_class'), {
    '2xx': 0.02,
    '4xx': 0.02,
  });
});

test('the log says what was a listening stream: a GET, or subscriptions/listen, that was answered with events', () => {
  const log = (method: string, headers: object, type: string) =>
    readOutcome(
      JSON.stringify({
        mesh: { record: { call_id: 'c', lease: 'l', service: 'a', instances: ['i'] } },
        request: { method, headers },
        response: { status: 200, headers: { 'content-type': type } },
      }),
    )?.stream;
  const events = 'text/event-stream';
  assert.equal(log('GET', {}, events), true);
  assert.equal(log('POST', { 'mcp-method': 'subscriptions/listen' }, events), true);
  assert.equal(log('POST', { 'mcp-method': 'tools/call' }, events), undefined);
  assert.equal(log('GET', {}, 'application/json'), undefined);
});

test('tries count by instance and result, and a retry when one was followed by another', async () => {
  const { metrics, values } = setUp();
  metrics.observe({
    ...OUTCOME,
    tries: [
      { instance: 'shop-1', result: 'failed', reason: 'the connection failed' },
      { instance: 'shop-2', result: 'answered', reason: '' },
    ],
  });
  assert.deepEqual(await values('retries_total', 'service'), { shop: 1 });
  assert.deepEqual(await values('instance_tries_total', 'instance'), { 'shop-1': 1, 'shop-2': 1 });
});

test('statuses, services and reasons that somebody makes up are no labels', async () => {
  const { metrics, values } = setUp();
  for (let i = 0; i < 2000; i += 1) {
    metrics.denied('forbidden', `made-up-${i}`);
    metrics.observe({ ...OUTCOME, status: 600 + i });
  }
  metrics.denied('rate_limited', 'shop');
  metrics.denied('bad_key');
  assert.deepEqual(await values('denials_total', 'service'), { other: 2000, shop: 1, none: 1 });
  assert.deepEqual(await values('requests_total', 'status'), { other: 2000 });
  assert.ok(seriesCount(await metrics.text()) < 80);
});

test('the series of an instance, and of a service, go with it', async () => {
  const { metrics, services, balancer, values } = setUp();
  metrics.observe(OUTCOME);
  metrics.observe({ ...OUTCOME, tries: [{ instance: 'shop-2', result: 'failed', reason: '' }] });
  metrics.observe({
    ...OUTCOME,
    service: 'gone',
    tries: [{ instance: 'gone-1', result: 'answered', reason: '' }],
  });
  metrics.denied('forbidden', 'gone');
  for (const id of ['shop-1', 'shop-2']) balancer.lease(id, id, 'call', 60_000);
  balancer.lease('s', 'shop-1', 'stream', 60_000);
  assert.deepEqual(await values('instance_in_flight', 'instance'), { 'shop-1': 1, 'shop-2': 1 });
  assert.deepEqual(await values('instance_streams', 'instance'), { 'shop-1': 1, 'shop-2': 0 });
  assert.deepEqual(await values('instance_breaker_state', 'instance'), {
    'shop-1': 0,
    'shop-2': 0,
    'gone-1': 0,
  });
  assert.match(await metrics.text(), /gone/);

  services.splice(0, 2, service('shop', ['shop-1']));
  const text = await metrics.text();
  assert.doesNotMatch(text, /gone|shop-2/);
  const kept = readSamples(text).filter(({ labels }) => labels.instance === 'shop-1');
  assert.equal(kept.length, 5, 'the four gauges and one counter of the instance that stayed');
  assert.deepEqual(await values('requests_total', 'service'), { shop: 2 });
});

test('breakers show by instance, and how many instances are out', async () => {
  const { metrics, ejection, values } = setUp();
  assert.deepEqual(await values('ejected_instances', 'service'), { shop: 0, gone: 0 });
  ejection.trip('c', 'shop-2', 'it said so');
  assert.deepEqual(await values('instance_breaker_state', 'instance'), {
    'shop-1': 0,
    'shop-2': 2,
    'gone-1': 0,
  });
  assert.deepEqual(await values('ejected_instances', 'service'), { shop: 1, gone: 0 });
  assert.deepEqual(await values('breaker_opened_total', 'service'), { shop: 1 });
  metrics.breakerOpened('nobody');
  assert.deepEqual(await values('breaker_opened_total', 'service'), { shop: 1 });
  ejection.close();
});

test('instances count by service and state, zeros included', async () => {
  const { services, values } = setUp();
  services.splice(0, 2, service('shop', ['shop-1'], 'critical'), service('empty', []));
  assert.deepEqual(await values('instances', 'state', { service: 'shop' }), {
    passing: 0,
    warning: 0,
    critical: 1,
    maintenance: 0,
  });
  assert.deepEqual(await values('instances', 'state', { service: 'empty' }), {
    passing: 0,
    warning: 0,
    critical: 0,
    maintenance: 0,
  });
});

test('the policy in force shows by its version; a file that is refused shows until it can be used', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'metrics-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'access.yaml');
  writeFileSync(path, 'version: 1\nanonymous: null\nroles: {}\n');
  const { metrics, values } = setUp({ policyPath: path });
  const first = Object.keys(await values('policy_info', 'version'));
  assert.equal(first.length, 1);
  const refused = async () => (await values('policy_refused'))[''];
  assert.equal(await refused(), 0);
  writeFileSync(path, 'version: 1\nroles: [\n');
  await until(async () => (await refused()) === 1);
  assert.deepEqual(Object.keys(await values('policy_info', 'version')), first);
  assert.deepEqual(await values('policy_refusals_total'), { '': 1 });
  writeFileSync(path, 'version: 1\nanonymous: null\nroles: { a: {} }\n');
  await until(async () => (await refused()) === 0);
  const second = Object.keys(await values('policy_info', 'version'));
  assert.equal(second.length, 1);
  assert.notDeepEqual(second, first);
  metrics.close();
});

test('what others count is shown: keys of issuers, the audit log', async () => {
  const { values } = setUp();
  assert.deepEqual(await values('jwks_failures_total'), { '': 3 });
  assert.deepEqual(await values('audit_entries_lost_total'), { '': 4 });
});

test('/metrics is served on loopback, also when the port becomes free later', async t => {
  const occupant = createServer();
  await once(occupant.listen(0, '127.0.0.1'), 'listening');
  const { port } = occupant.address() as { port: number };
  const complaints = t.mock.method(process.stderr, 'write', () => true);
  const metrics = createGatewayMetrics({ host: '127.0.0.1', port });
  t.after(() => metrics.close());
  await until(async () => complaints.mock.callCount() > 0);
  assert.match(String(complaints.mock.calls[0]?.arguments[0]), /EADDRINUSE.*MESH_GATEWAY_METRICS_PORT/);
  complaints.mock.restore();
  await once(occupant.close(), 'close');
  const url = `http://127.0.0.1:${port}`;
  await until(() =>
    fetch(url).then(
      ({ status }) => status === 404,
      () => false,
    ),
  );
  const response = await fetch(`${url}/metrics?x`);
  assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
  const text = await response.text();
  for (const name of [
    'nodejs_eventloop_lag_p99_seconds',
    'nodejs_heap_size_used_bytes',
    'process_start_time_seconds',
  ])
    assert.equal(valuesOf(text, `mcp_mesh_${name}`).length, 1, name);
});

test('at an address that others reach there are metrics, and no decisions', async t => {
  const address = Object.values(networkInterfaces())
    .flatMap(entries => entries ?? [])
    .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
  if (address === undefined) return t.skip('this machine has no address but loopback');
  const port = await freePort();
  const metrics = createGatewayMetrics({ host: '0.0.0.0', port }, undefined, () => ({ secret: true }));
  t.after(() => metrics.close());
  // The name is what a client writes; the address it comes from is not.
  const status = async (host: string, path: string) => {
    const call = request({ host, port, path, headers: { host: '127.0.0.1' } }).end();
    const [response] = (await once(call, 'response')) as [IncomingMessage];
    response.resume();
    return response.statusCode;
  };
  await until('the port', () =>
    status('127.0.0.1', '/metrics').then(
      () => true,
      () => false,
    ),
  );
  const asked = ['/metrics', '/decisions/12345678'];
  assert.deepEqual(await Promise.all(asked.map(path => status('127.0.0.1', path))), [200, 200]);
  assert.deepEqual(await Promise.all(asked.map(path => status(address, path))), [200, 404]);
});

function setUp({ policyPath }: { policyPath?: string } = {}) {
  const services = [service('shop', ['shop-1', 'shop-2']), service('gone', ['gone-1'])];
  const discovery = {
    age: () => 0,
    list: () => services,
    find: (name: string) => services.find(({ name: known }) => known === name),
  };
  const balancer = createBalancer();
  const ejection = new Ejection({
    onChange: (instance, state) => state === 'open' && metrics.breakerOpened(instance),
  });
  const metrics = createGatewayMetrics(undefined, discovery);
  const policy = createPolicy({ path: policyPath, warn: () => {}, onRefused: metrics.policyRefused });
  const sources: GatewaySources = {
    discovery,
    balancer,
    ejection,
    policy,
    authenticator: { jwksFailures: 3 },
    audit: { dropped: 4 },
  };
  metrics.follow(sources);
  /** Of a gateway metric: its values by one label, added up. */
  const values = async (name: string, label = '', wanted: Record<string, string> = {}) => {
    const sums: Record<string, number> = {};
    for (const { labels, value } of valuesOf(await metrics.text(), `mcp_mesh_gateway_${name}`)) {
      if (Object.entries(wanted).some(([key, text]) => labels[key] !== text)) continue;
      const key = labels[label] ?? '';
      sums[key] = (sums[key] ?? 0) + value;
    }
    return sums;
  };
  return { metrics, services, balancer, ejection, values };
}

function service(name: string, ids: string[], status: Instance['status'] = 'passing'): KnownService {
  const instances = ids.map(
    id => ({ id, status, reason: '', address: '127.0.0.1', port: 1, meta: {} }) as unknown as Instance,
  );
  return { name, instances, definition: {} } as unknown as KnownService;
}

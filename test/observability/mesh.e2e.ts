import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { Dashboard, Panel } from '../../cli/dashboards/panel.ts';
import { DASHBOARDS } from '../../cli/dashboards.ts';
import { descendants } from '../e2e/mesh-process.ts';
import { installPlugin, startPluginGateway } from '../plugin-gateway.ts';
import { findConsul } from '../real-consul.ts';
import { freePort, skipWithout } from '../real-program.ts';
import { skipWithoutPrometheus } from '../real-prometheus.ts';
import { skipWithoutRedis } from '../real-redis.ts';
import { until } from '../until.ts';
import { INITIALIZE } from '../workers/helpers.ts';
import { type Fault, fullDisk, noIssuerKeys, noLimitStore, slowTool, workerOf } from './faults.ts';
import { keepCalling, LIMITED, type ObservedMesh, startObservedMesh, untilFiring } from './observed-mesh.ts';
import { readRules } from './prometheus-config.ts';

/** 5 minutes, at 20 times the speed. */
const HEALTHY_MS = 15_000;
const FAULTS: Readonly<Record<string, Fault>> = {
  'McpLatencyOverBudget shop': slowTool,
  'McpAuditLosesEntries shop': fullDisk,
  McpLimitStoreFailing: noLimitStore,
  McpIssuerKeysFailing: noIssuerKeys,
};
const panels: { where: string; panel: Panel }[] = Object.values(DASHBOARDS).flatMap((dashboard: Dashboard) =>
  dashboard.panels.map(panel => ({ where: `${dashboard.uid}: ${panel.title}`, panel })),
);

const skip = skipWithoutPrometheus() || skipWithoutRedis() || skipWithout(findConsul());

describe('a real Prometheus on a real mesh', { skip }, () => {
  let observed: ObservedMesh;
  const stops: (() => Promise<void>)[] = [];
  const stopCalling = () => Promise.all(stops.splice(0).map(stop => stop()));
  /** Ends the calls of `faulty` that are answered. */
  let stopAnswered = async () => {};
  before(async () => {
    observed = await startObservedMesh();
    const stream = await openStream(observed.mesh.url);
    observed.addCleanUp(stream.close);
    const token = await observed.issuer.token('everybody');
    assert.equal(await observed.call('shop', 'echo', {}, { authorization: `Bearer ${token}` }), 200);
    stops.push(keepCalling(2, () => observed.call('shop', 'slow', { ms: 20 })));
    for (const service of ['tight', 'fragile'])
      stops.push(keepCalling(1, () => observed.call(service, 'slow', { ms: 50 })));
    stopAnswered = keepCalling(1, () => observed.call('faulty', 'slow', { ms: 50 }));
    stops.push(stopAnswered);
  });
  after(async () => {
    await stopCalling();
    await observed?.stop();
  });

  test('in a healthy run no alert fires, and every panel and rule has data', async () => {
    await until('scrape of all', async () => (await observed.query('sum(up)'))[0]?.value === 6);
    // Prometheus takes 5 s from its start until it scrapes, whatever its configuration says: longer than a compressed
    // minute, in which no gateway is known to it. One that stays beyond that ends the test here.
    await until(
      'end of what fired before the first scrape',
      async () => (await observed.firing()).size === 0,
    );
    const quietUntil = Date.now() + HEALTHY_MS;
    while (Date.now() < quietUntil) {
      assert.deepEqual([...(await observed.firing())], []);
      await pause(250);
    }
    const standing = panels.filter(({ panel }) => !panel.emptyWhenHealthy);
    for (const { where, panel } of standing) await hasData(observed, where, panel);
    for (const { record, expr } of readRules())
      if (record !== undefined) await untilData(observed, record, expr);
    const [up] = await observed.query('mcp_mesh_worker_child_up{service="tight"}');
    const { exported_service, instance, node, job } = up?.metric ?? {};
    assert.equal(exported_service, undefined);
    assert.match(String(instance), /^mcp-tight-.+-\d+$/, "the instance is Consul's");
    assert.ok(node);
    assert.equal(job, 'mcp-workers');
    const [breaker] = await observed.query('mcp_mesh_gateway_instance_breaker_state{service="tight"}');
    assert.equal(breaker?.metric.instance, instance, 'both sides name an instance alike');
  });

  test('faults of services fire their alerts', async () => {
    const { call } = observed;
    // It never answers, and is retried when its server dies: the file that it leaves lets no other server live.
    const interrupted = call('fragile', 'tally-readonly', { hangs: 9 });
    await until(
      'the call in the server',
      async () => (await observed.query('sum(mcp_mesh_worker_in_flight{service="fragile"})'))[0]?.value !== 0,
    );
    const crashed = call('fragile', 'crash');
    // It answers nobody any more: a breaker opens by failures in a row, and one answer in between is a new beginning.
    await stopAnswered();
    stops.push(keepCalling(2, () => call('faulty', 'silent')));
    stops.push(keepCalling(11, () => call('tight', 'slow', { ms: 200 })));
    await useLimits(observed);
    writeFileSync(observed.policyPath, 'version: 1\nroles: [\n');
    for (const alert of [
      'McpNoHealthyInstance fragile',
      'McpRestartStorm fragile',
      'McpErrorRatioHigh faulty',
      'McpBreakerOpen faulty',
      'McpQueueNearLimit tight',
      'McpQuotaNearEnd shop',
      'McpPolicyRefused',
    ])
      await untilFiring(observed, alert);
    assert.ok((await interrupted) >= 500 && (await crashed) >= 500);
  });

  test('what is empty while all is well has data then', async t => {
    // Until Consul takes it for dead, connections to it fail and are made to the other one: let it not be too quick.
    process.kill(observed.consul.pid, 'SIGSTOP');
    const goOn = () => process.kill(observed.consul.pid, 'SIGCONT');
    t.after(goOn);
    process.kill(workerOf(observed, 'shop'), 'SIGKILL');
    const retried = 'sum(mcp_mesh_gateway_retries_total{service="shop"}) > 0';
    await untilData(observed, 'a retry', retried);
    goOn();
    const provoked = panels.filter(({ panel }) => panel.emptyWhenHealthy);
    assert.ok(provoked.length > 0);
    for (const { where, panel } of provoked) await hasData(observed, where, panel);
  });

  test('faults of what the mesh leans on fire their alerts', async () => {
    // Callers who are refused at once, and ask again at once, take the time that the next faults need.
    await stopCalling();
    const before = await observed.firing();
    for (const [alert, fault] of Object.entries(FAULTS)) {
      assert.ok(!before.has(alert), `${alert} fires already`);
      stops.push(await fault(observed));
    }
    for (const alert of Object.keys(FAULTS)) await untilFiring(observed, alert);
  });

  test('faults of gateways and of scraping fire their alerts', async t => {
    const port = await startStaleGateway(observed);
    await observed.configure({ alsoGateway: port, hidden: 'tight' });
    await untilFiring(observed, 'McpCatalogueStale');
    await untilFiring(observed, 'McpScrapeMissing tight');
    const server = descendants(observed.mesh.pid).find(({ command }) => command.includes('server.cjs'));
    assert.ok(server);
    // It holds its port and its socket, and answers nobody.
    process.kill(server.pid, 'SIGSTOP');
    t.after(() => process.kill(server.pid, 'SIGCONT'));
    await untilFiring(observed, 'McpGatewayPluginDown');
  });
});

/** A tool that it may not use, then over each limit of the caller that has some; and one that nobody knows. */
async function useLimits({ call }: ObservedMesh): Promise<void> {
  // By the worker: the gateway does not see which tool it is.
  assert.equal(await call('shop', 'env', {}, LIMITED), 403);
  const statuses: number[] = [];
  for (let i = 0; i < 24; i += 1) statuses.push(await call('shop', 'echo', {}, LIMITED));
  assert.ok(statuses.includes(200) && statuses.includes(429), String(statuses));
  assert.equal(await call('shop', 'echo', {}, { 'x-api-key': 'mk_wrong' }), 401);
  await call('no-such-service', 'echo');
}

async function hasData(observed: ObservedMesh, where: string, { queries }: Panel): Promise<void> {
  for (const { expr } of queries)
    await untilData(observed, where, expr.replaceAll(/\$(?:service|instance)/g, '.*'));
}

/** Some number: what divides by nothing is none. */
async function untilData({ query }: ObservedMesh, where: string, expression: string): Promise<void> {
  const look = async () => (await query(expression)).some(({ value }) => !Number.isNaN(value));
  await until(`data for ${where}: ${expression}`, look);
}

async function openStream(gateway: string): Promise<{ close(): void }> {
  const url = `${gateway}/api/v1/mcp/shop`;
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(INITIALIZE) });
  const session = answer.headers.get('mcp-session-id') ?? '';
  await answer.text();
  const closing = new AbortController();
  const stream = await fetch(url, {
    headers: { accept: 'text/event-stream', 'mcp-session-id': session },
    signal: closing.signal,
  });
  assert.equal(stream.status, 200);
  return { close: () => closing.abort() };
}

/** A gateway that came up with a table of ten minutes ago and cannot reach Consul; resolves with its metrics' port. */
async function startStaleGateway({ table, folder, addCleanUp }: ObservedMesh): Promise<number> {
  const port = await freePort();
  const state = join(folder, 'stale');
  mkdirSync(state);
  const saved = JSON.parse(readFileSync(table, 'utf8'));
  const answeredAt = Date.now() - 600_000;
  writeFileSync(join(state, 'discovery.json'), JSON.stringify({ ...saved, answered_at: answeredAt }), {
    mode: 0o600,
  });
  const env = {
    CONSUL_HTTP_ADDR: 'http://127.0.0.1:1',
    MESH_STATE_DIR: state,
    MESH_GATEWAY_METRICS_PORT: String(port),
  };
  const gateway = await startPluginGateway(await installPlugin(folder), env, { log: () => {} });
  addCleanUp(() => gateway.close());
  return port;
}

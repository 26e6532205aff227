import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decide } from '../../kong-plugin/access.ts';
import { createAuthenticator } from '../../kong-plugin/authenticate.ts';
import { createBalancer } from '../../kong-plugin/balancer/balancer.ts';
import type { Discovery, KnownService } from '../../kong-plugin/discovery.ts';
import { Ejection } from '../../kong-plugin/ejection.ts';
import type { AnswerDecision, RouteDecision } from '../../kong-plugin/handoff.ts';
import { readRequest } from '../../kong-plugin/handoff.ts';
import { createLimits } from '../../kong-plugin/limits.ts';
import { readOutcome } from '../../kong-plugin/log.ts';
import { parseAccessPolicy } from '../../mesh/access-policy.ts';
import type { Instance } from '../../mesh/consul.ts';
import { createHostGuard } from '../../mesh/host-guard.ts';
import { createLimitStore } from '../../mesh/limit-store.ts';
import { writeLoadReport } from '../../mesh/load-report.ts';
import { ownerHash } from '../../mesh/names.ts';

function instance(port: number, status: Instance['status'] = 'passing', reason = ''): Instance {
  const id = `mcp-a-host-${port}`;
  return {
    id,
    service: 'mcp-a',
    node: 'host',
    address: '10.0.0.1',
    port,
    tags: ['mcp'],
    meta: { mcp_server: 'a', version: '1.0', era: 'legacy' },
    weights: { passing: 100, warning: 10 },
    status,
    reason,
  };
}

/** Everybody may do everything. */
const OPEN = 'version: 1\nanonymous: all\nroles: { all: { allow: [{ service: "*" }] } }';

function gatewayOf(...instances: Instance[]) {
  const definition = { load_balancer: 'ROUND_ROBIN', timeout_ms: 60_000, tool_timeouts: { slow: 300_000 } };
  const service: KnownService = { name: 'a', definition, instances };
  const discovery: Discovery = {
    ready: () => Promise.resolve(),
    find: name => (name === 'a' ? service : undefined),
    list: () => [service],
    age: () => 0,
    close: () => {},
  };
  const balancer = createBalancer();
  const refuseHost = createHostGuard({ hosts: [], origins: [], localNames: true });
  const policy = () => parseAccessPolicy(OPEN, { path: 'access.yaml' }).policy;
  const parts = {
    discovery,
    balancer,
    ejection: new Ejection(),
    refuseHost,
    policy,
    authenticator: createAuthenticator({ policy, kongConsumers: false, log: () => {} }),
    limits: createLimits({ store: createLimitStore({ log: () => {} }) }),
    meshApi: { handle: () => assert.fail('not asked') },
    sign: undefined,
    audit: undefined,
    publicUrl: undefined,
    metrics: { denied: () => {} },
  };
  return (path: string, { method = 'POST', headers: given = {} as Record<string, string> } = {}) => {
    const headers = { host: 'localhost:10010', ...given };
    return decide({ method, path, query: '', clientIp: '', headers, allHeaders: headers, body: '' }, parts);
  };
}

test('a call goes to the passing instances, each first in its turn, three at most', async () => {
  const ask = gatewayOf(instance(1), instance(2), instance(3, 'critical'), instance(4), instance(5));
  const firsts = [];
  for (let i = 0; i < 8; i += 1) {
    const { targets } = (await ask('/api/v1/mcp/a')) as RouteDecision;
    assert.equal(targets.length, 3);
    firsts.push(targets[0]?.[1]);
  }
  assert.deepEqual(firsts, [1, 2, 4, 5, 1, 2, 4, 5]);
});

test('a routed call carries what Kong and the log phase need', async () => {
  const decision = (await gatewayOf(instance(1))('/api/v1/mcp/a/execute', {
    headers: { 'x-request-id': 'call-12345' },
  })) as RouteDecision;
  assert.deepEqual(decision.targets, [['10.0.0.1', 1]]);
  assert.equal(decision.path, '/execute');
  assert.deepEqual(decision.headers, { 'x-request-id': 'call-12345' });
  assert.deepEqual(decision.timeouts, [2000, 60_000, 330_000]);
  const { lease, ...record } = decision.record;
  assert.deepEqual(record, { call_id: 'call-12345', service: 'a', instances: ['mcp-a-host-1'] });
  assert.notEqual(lease, 'call-12345');
  assert.equal(decision.failure.type, 'application/problem+json');
  const bodies = [decision.failure.lost, decision.failure.late].map(body => JSON.parse(body));
  assert.deepEqual(
    bodies.map(({ code, status, delivered }) => [code, status, delivered]),
    [
      ['worker_lost', 502, 'unknown'],
      ['timeout', 504, 'unknown'],
    ],
  );
});

test('requests that all bear one call id have a lease each', async () => {
  const ask = gatewayOf(instance(1));
  const leases = new Set<string>();
  for (let i = 0; i < 3; i += 1) {
    const headers = { 'x-request-id': 'call-12345' };
    const { record } = (await ask('/api/v1/mcp/a/execute', { headers })) as RouteDecision;
    leases.add(record.lease);
  }
  assert.equal(leases.size, 3);
});

test('the failure of an MCP call is JSON-RPC', async () => {
  const { failure } = (await gatewayOf(instance(1))('/api/v1/mcp/a')) as RouteDecision;
  assert.equal(failure.type, 'application/json');
  assert.equal(JSON.parse(failure.lost).error.data.code, 'worker_lost');
});

test('a session’s owner goes first, while it passes', async () => {
  const owner = `${ownerHash('mcp-a-host-3')}.x.y`;
  const firstTarget = async (...instances: Instance[]) => {
    const ask = gatewayOf(...instances);
    const all = [];
    for (let i = 0; i < 4; i += 1) {
      const { targets } = (await ask('/api/v1/mcp/a', {
        headers: { 'mcp-session-id': owner },
      })) as RouteDecision;
      all.push(targets[0]?.[1]);
    }
    return new Set(all);
  };
  assert.deepEqual(await firstTarget(instance(1), instance(2), instance(3)), new Set([3]));
  assert.deepEqual(await firstTarget(instance(1), instance(2), instance(3, 'critical')), new Set([1, 2]));
});

describe('what cannot be routed is answered', () => {
  const down = gatewayOf(
    instance(1, 'critical', 'child exits with 127; last words: sh: foo: not found'),
    instance(2, 'maintenance'),
  );
  const cases = [
    {
      desc: 'no instance passes: every reason is named',
      ask: down,
      path: '/api/v1/mcp/a/execute',
      status: 503,
      code: 'no_healthy_instance',
      detail: /mcp-a-host-1 is critical: child exits with 127; mcp-a-host-2 is maintenance/,
    },
    {
      desc: 'none is registered',
      ask: gatewayOf(),
      path: '/api/v1/mcp/a/execute',
      status: 503,
      code: 'no_healthy_instance',
      detail: /no instance of "a" is registered/,
    },
    {
      desc: 'unknown service',
      ask: down,
      path: '/api/v1/mcp/b/execute',
      status: 404,
      code: 'unknown_service',
      detail: /"b"/,
    },
    {
      desc: 'unknown path',
      ask: down,
      path: '/api/v1/mcp/a/nope',
      status: 404,
      code: 'unknown_path',
      detail: /\/execute/,
    },
    {
      desc: 'wrong method',
      ask: down,
      path: '/api/v1/mcp/a/execute',
      method: 'GET',
      status: 405,
      code: 'method_not_allowed',
      detail: /POST/,
    },
    {
      desc: 'foreign Host',
      ask: down,
      path: '/api/v1/mcp/a/execute',
      headers: { host: 'evil.example' },
      status: 403,
      code: 'forbidden',
      detail: /evil.example/,
    },
    {
      desc: 'foreign Origin',
      ask: down,
      path: '/api/v1/mcp/a/execute',
      headers: { origin: 'http://evil.example' },
      status: 403,
      code: 'forbidden',
      detail: /evil.example/,
    },
  ];
  for (const { desc, ask, path, status, code, detail, ...options } of cases) {
    test(desc, async () => {
      const answer = (await ask(path, options)) as AnswerDecision;
      const problem = JSON.parse(answer.body);
      assert.deepEqual([answer.status, problem.status, problem.code], [status, status, code]);
      assert.match(problem.detail, detail);
      assert.equal(answer.headers['x-request-id'], problem.call_id);
    });
  }

  test('on the MCP endpoint in JSON-RPC', async () => {
    const answer = (await down('/api/v1/mcp/a')) as AnswerDecision;
    assert.equal(answer.headers['content-type'], 'application/json');
    assert.equal(JSON.parse(answer.body).error.data.code, 'no_healthy_instance');
    assert.equal(answer.headers['retry-after'], '1');
  });
});

test('a caller who asks for a capability gets instances that have it, or all when none has', async () => {
  const able = { ...instance(2), meta: { ...instance(2).meta, capabilities: 'gpu,python' } };
  const ask = gatewayOf(instance(1), able, instance(3));
  const ports = async (capability: string) => {
    const { targets } = (await ask('/api/v1/mcp/a', {
      headers: { 'x-mcp-capability': capability },
    })) as RouteDecision;
    return targets.map(([, port]) => port).sort();
  };
  assert.deepEqual(await ports('python'), [2]);
  assert.deepEqual(await ports('python, gpu'), [2]);
  assert.deepEqual(await ports('python,rust'), [1, 2, 3]);
  assert.deepEqual(await ports(''), [1, 2, 3]);
});

test('an activator is chosen only when nothing else passes', async () => {
  const activator = { ...instance(9), meta: { ...instance(9).meta, role: 'activator' } };
  const targets = async (...instances: Instance[]) =>
    ((await gatewayOf(...instances)('/api/v1/mcp/a')) as RouteDecision).targets.map(([, port]) => port);
  assert.deepEqual(await targets(instance(1), activator), [1]);
  assert.deepEqual(await targets(instance(1, 'critical'), activator), [9]);
});

test('status works with no healthy instance', async () => {
  const answer = (await gatewayOf(instance(1, 'critical', 'broken'))('/api/v1/mcp/a/status', {
    method: 'GET',
  })) as AnswerDecision;
  assert.equal(answer.status, 200);
  assert.deepEqual(JSON.parse(answer.body), {
    service: 'a',
    instances: 1,
    healthy: 0,
    strategy: 'ROUND_ROBIN',
    details: [
      {
        id: 'mcp-a-host-1',
        address: '10.0.0.1:1',
        state: 'critical',
        reason: 'broken',
        load: null,
        breaker: 'closed',
        version: '1.0',
        era: 'legacy',
      },
    ],
  });
});

test('services are listed', async () => {
  const answer = (await gatewayOf(instance(1))('/api/v1/mcp', { method: 'GET' })) as AnswerDecision;
  assert.deepEqual(JSON.parse(answer.body).services, [
    { service: 'a', instances: 1, healthy: 1, strategy: 'ROUND_ROBIN', path: '/api/v1/mcp/a' },
  ]);
});

test('what Lua left is read with its looseness taken out', () => {
  const request = readRequest({
    method: 'GET',
    path: '/x',
    headers: { accept: ['a', 'b'], Host: 'h', flag: true },
  });
  assert.deepEqual(request?.headers, { accept: 'a', host: 'h' });
  assert.deepEqual(readRequest({ method: 'GET', path: '/x', headers: [] })?.headers, {});
  assert.equal(readRequest(undefined), undefined);
});

const LOG = {
  mesh: {
    record: { call_id: 'c', lease: 'l', service: 'a', instances: ['i1', 'i2', 'i3'] },
    load: writeLoadReport({
      cpu: 0.5,
      memory: 0.25,
      inFlight: 3,
      queueDepth: 1,
      latencyMs: 8,
      breakerOpen: false,
    }),
  },
  source: 'upstream',
  tries: [{ state: 'failed' }, {}],
  response: { status: 200 },
  latencies: { request: 12, proxy: 9 },
};

test('the log tells who was tried', () => {
  const want = {
    callId: 'c',
    lease: 'l',
    service: 'a',
    status: 200,
    tries: [
      { instance: 'i1', result: 'failed', reason: 'the connection failed' },
      { instance: 'i2', result: 'answered', reason: '' },
    ],
    latencyMs: 12,
    answeredMs: 9,
    report: { cpu: 0.5, memory: 0.25, inFlight: 3, queueDepth: 1, latencyMs: 8, breakerOpen: false },
  };
  assert.deepEqual(readOutcome(JSON.stringify(LOG)), want);
  assert.equal(readOutcome(JSON.stringify({ ...LOG, mesh: undefined })), undefined);
});

describe('what counts against the instance that was tried last', () => {
  const cases = [
    { desc: 'an answer of its own', log: {}, result: 'answered' },
    { desc: 'its refusal', log: { response: { status: 503 } }, result: 'answered' },
    { desc: 'an error of the tool', log: { response: { status: 422 } }, result: 'answered' },
    {
      desc: 'a 502 of its own',
      log: { response: { status: 502 } },
      result: 'failed',
      reason: /answered 502/,
    },
    {
      desc: 'a 504 of its own',
      log: { response: { status: 504 } },
      result: 'failed',
      reason: /answered 504/,
    },
    { desc: 'a reset', log: { source: 'kong', response: { status: 502 } }, result: 'failed', reason: /lost/ },
    {
      desc: 'silence',
      log: { source: 'kong', response: { status: 504 } },
      result: 'failed',
      reason: /in time/,
    },
    {
      desc: 'nothing: the client left',
      log: { source: 'kong', response: { status: 499 } },
      result: 'unknown',
    },
    {
      desc: 'a connection that failed',
      log: { source: 'kong', tries: [{ state: 'failed' }, { state: 'failed' }], response: { status: 502 } },
      result: 'failed',
      reason: /the connection failed/,
    },
  ];
  for (const { desc, log, result, reason = /^/ } of cases) {
    test(desc, () => {
      const last = readOutcome(JSON.stringify({ ...LOG, ...log }))?.tries.at(-1);
      assert.deepEqual([last?.instance, last?.result], ['i2', result]);
      assert.match(last?.reason ?? '', reason);
    });
  }
});

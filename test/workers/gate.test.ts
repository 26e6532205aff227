import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import type { AuditLog } from '../../mesh/audit-log.ts';
import { MeshError } from '../../mesh/errors.ts';
import type { Grants, Limits } from '../../mesh/grants.ts';
import { type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import type { Caller } from '../../workers/caller.ts';
import { Gate } from '../../workers/gate.ts';
import type { QuotaUse } from '../../workers/quota.ts';
import type { Relay, Upstream } from '../../workers/relay.ts';
import { NO_TRACING } from '../../workers/tracing.ts';
import { scriptedService } from './helpers.ts';

const SOME: Grants = { allow: [{ tools: ['get_*'] }], deny: [] };
const QUOTA: Limits = { quota: { calls: 10, period: 'day' } };
const WARNED: QuotaUse = { remaining: 2, limit: 10, period: 'day', warning: '80 % of the quota is used' };
const RESULT = '{"jsonrpc":"2.0","id":1,"result":{"n":9007199254740993}}';
const upstream = {} as Upstream;

describe('a call', () => {
  test('that may not be made reaches nobody, costs nothing and is written down', async () => {
    const { gate, told, entries } = build();
    await refused(gate.call(upstream, toolCall('put_x'), { caller: callerOf(SOME, QUOTA) }), 'forbidden');
    assert.deepEqual(told, []);
    assert.deepEqual([entries.length, entries[0]?.outcome, entries[0]?.name], [1, 'forbidden', 'put_x']);
  });

  test('is counted before it goes to the server, by the caller’s own limits', async () => {
    const { gate, told } = build();
    const text = await gate.call(upstream, toolCall('get_x'), { caller: callerOf(SOME, QUOTA) });
    assert.equal(text, RESULT, 'what the server wrote stays as it was');
    assert.deepEqual(told, [`charge get_x ${JSON.stringify(QUOTA)}`, 'relay key:a']);
  });

  test('that the quota refuses reaches no server', async () => {
    const { gate, told, entries } = build({ charge: new MeshError('quota_exceeded', { retryAfterMs: 1 }) });
    await refused(
      gate.call(upstream, toolCall('get_x'), { caller: callerOf(SOME, QUOTA) }),
      'quota_exceeded',
    );
    assert.deepEqual([told.length, entries[0]?.outcome], [1, 'quota_exceeded']);
  });

  test('near the end of a quota says so in its result, and an error stays as it is', async () => {
    const caller = callerOf(SOME, QUOTA);
    const warned = await build({ charge: WARNED }).gate.call(upstream, toolCall('get_x'), { caller });
    assert.equal(
      warned,
      `{"jsonrpc":"2.0","id":1,"result":{"n":9007199254740993,"_meta":{"mcp-mesh/quota":${JSON.stringify(WARNED)}}}}`,
    );
    const answer = '{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"x"}}';
    const failed = await build({ charge: WARNED, answer }).gate.call(upstream, toolCall('get_x'), { caller });
    assert.equal(failed, answer);
  });

  for (const [delivered, refund] of [
    ['no', true],
    ['unknown', false],
    ['yes', false],
  ] as const) {
    test(`that fails with delivered: ${delivered} is ${refund ? '' : 'not '}given back`, async () => {
      const { gate, told, entries } = build({ answer: new MeshError('queue_full', { delivered }) });
      const call = gate.call(upstream, toolCall('get_x'), { caller: callerOf(SOME, QUOTA) });
      await refused(call, 'queue_full');
      assert.equal(told.includes('refund get_x'), refund);
      assert.equal(entries[0]?.outcome, 'queue_full');
    });
  }

  test('that goes on is not counted again, and still looked at', async () => {
    const { gate, told } = build();
    await gate.call(upstream, toolCall('get_x'), { caller: callerOf(SOME, QUOTA), continued: true });
    assert.deepEqual(told, ['relay key:a']);
    const other = gate.call(upstream, toolCall('put_x'), { caller: callerOf(SOME, QUOTA), continued: true });
    await refused(other, 'forbidden');
  });

  test('of anything but a tool costs nothing', async () => {
    const { gate, told } = build({
      answer: '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"put_x"},{"name":"get_x"}]}}',
    });
    const caller = callerOf(SOME, QUOTA);
    const text = await gate.call(upstream, requestOf('tools/list', '{}'), { caller });
    assert.equal(text, '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get_x"}]}}');
    assert.deepEqual(told, ['relay key:a']);
  });

  test('of a caller without limits asks nobody for them', async () => {
    const { gate, told } = build();
    await gate.call(upstream, toolCall('get_x'), {
      caller: callerOf(SOME, { rate: { requests: 1, windowS: 1 } }),
    });
    assert.deepEqual(told, ['relay key:a']);
  });
});

describe('arguments that do not fit', () => {
  const errors = [{ pointer: '/a', detail: 'is missing' }];
  const invalid = new MeshError('invalid_arguments', { detail: '/a is missing', errors });

  test('are a result of the tool that reached nobody, cost nothing and are written down', async () => {
    const { gate, told, entries } = build({ invalid });
    const text = await gate.call(upstream, toolCall('get_x'), { caller: callerOf(SOME, QUOTA) });
    assert.partialDeepStrictEqual(JSON.parse(text.toString()), { id: 1, result: { isError: true } });
    assert.deepEqual([told, entries[0]?.outcome], [[], 'invalid_arguments']);
  });

  test('are an error for whose protocol has one', async () => {
    const { gate } = build({ invalid });
    const call = gate.call(upstream, toolCall('get_x'), { caller: callerOf(SOME), throwsInvalid: true });
    await assert.rejects(call, invalid);
  });

  test('are not looked at for who may not call the tool, nor in a further round', async () => {
    const { gate, told } = build({ invalid });
    await refused(gate.call(upstream, toolCall('put_x'), { caller: callerOf(SOME) }), 'forbidden');
    await gate.call(upstream, toolCall('get_x'), { caller: callerOf(SOME), continued: true });
    assert.deepEqual(told, ['relay key:a']);
  });
});

describe('the audit log', () => {
  test('has who called what, when, with which arguments by their hash, and how it ended', async () => {
    const { gate, entries } = build();
    const args = '{"password":"secret-1","n":9007199254740993}';
    await gate.call(upstream, toolCall('get_x', args), { caller: callerOf(SOME) });
    const [entry = {}] = entries;
    assert.partialDeepStrictEqual(entry, {
      event: 'execution',
      call_id: 'call-1',
      principal: 'key:a',
      service: 'scripted',
      instance: 'mcp-scripted-host-1',
      method: 'tools/call',
      name: 'get_x',
      arguments_sha256: createHash('sha256').update(args).digest('hex'),
      outcome: 'ok',
      bytes: RESULT.length,
    });
    assert.ok(!Number.isNaN(Date.parse(String(entry.time))) && typeof entry.latency_ms === 'number');
    assert.ok(!JSON.stringify(entry).includes('secret-1'));
  });

  test('has arguments when it is asked to, as they were written', async () => {
    const { gate, entries } = build({ auditArguments: true });
    await gate.call(upstream, toolCall('get_x', '{"n":9007199254740993}'), { caller: callerOf(SOME) });
    assert.equal(entries[0]?.arguments, '{"n":9007199254740993}');
  });

  test('has one line for each call, refused ones and those that are answered without a server included', async () => {
    const { gate, entries } = build();
    gate.check(toolCall('get_x'), callerOf(SOME));
    assert.equal(entries.length, 0, 'what is let in is told when it has ended');
    const subscribe = requestOf('resources/subscribe', '{"uri":"file:///x"}');
    assert.throws(() => gate.check(subscribe, callerOf(SOME)), { code: 'forbidden' });
    await gate.call(upstream, requestOf('prompts/list', '{}'), { caller: callerOf(SOME) });
    assert.deepEqual(
      entries.map(({ method, uri, outcome }) => [method, uri, outcome]),
      [
        ['resources/subscribe', 'file:///x', 'forbidden'],
        ['prompts/list', undefined, 'ok'],
      ],
    );
  });

  test('may be absent', async () => {
    const { gate } = build({ audit: false });
    assert.equal(await gate.call(upstream, toolCall('get_x'), { caller: callerOf(SOME) }), RESULT);
  });
});

interface Parts {
  /** What charging resolves with, or what it fails with. */
  charge?: QuotaUse | MeshError;
  /** The server's response, or what the call fails with. */
  answer?: string | MeshError;
  /** What the check of the arguments fails with. */
  invalid?: MeshError;
  auditArguments?: boolean;
  audit?: boolean;
}

function build({ charge, answer = RESULT, invalid, auditArguments = false, audit = true }: Parts = {}) {
  const told: string[] = [];
  const entries: Record<string, unknown>[] = [];
  const relay = {
    async call(_upstream: Upstream, _request: RpcRequest, { principal }: { principal: string }) {
      told.push(`relay ${principal}`);
      if (answer instanceof MeshError) throw answer;
      return answer;
    },
  } as unknown as Relay;
  const log: AuditLog = {
    write: entry => void entries.push(entry as Record<string, unknown>),
    flush: async () => {},
    close: async () => {},
    dropped: 0,
  };
  const gate = new Gate({
    service: scriptedService(),
    relay,
    quota: {
      async charge({ tool, limits }) {
        told.push(`charge ${tool} ${JSON.stringify(limits)}`);
        if (charge instanceof MeshError) throw charge;
        return charge;
      },
      async refund({ tool }) {
        told.push(`refund ${tool}`);
      },
    },
    audit: audit ? log : undefined,
    metrics: { called: () => {} },
    isListed: () => true,
    checkArguments: async () => {
      if (invalid) throw invalid;
    },
    tracing: NO_TRACING,
    instance: () => 'mcp-scripted-host-1',
    auditArguments,
  });
  return { gate, told, entries };
}

function callerOf(grants: Grants, limits: Limits = {}): Caller {
  return { principal: 'key:a', grants, limits, callId: 'call-1', vouched: true };
}

function requestOf(method: string, params: string): RpcRequest {
  return readMessage(`{"jsonrpc":"2.0","id":1,"method":"${method}","params":${params}}`) as RpcRequest;
}

function toolCall(name: string, args = '{}'): RpcRequest {
  return requestOf('tools/call', `{"name":"${name}","arguments":${args}}`);
}

function refused(call: Promise<unknown>, code: string): Promise<void> {
  return assert.rejects(call, { code });
}

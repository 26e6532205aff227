import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createBalancer } from '../../kong-plugin/balancer/balancer.ts';
import { answerDecision, createDecisions, type DecisionNotes, weigh } from '../../kong-plugin/decisions.ts';
import { Ejection } from '../../kong-plugin/ejection.ts';
import type { Outcome } from '../../kong-plugin/log.ts';
import type { Instance } from '../../mesh/consul.ts';

const notes = (callId: string): DecisionNotes => ({
  callId,
  request: { method: 'POST', path: '/api/v1/mcp/a', clientIp: '10.0.0.9' },
});
const outcome = (callId: string, decision: number): Outcome => ({
  callId,
  lease: 'l',
  service: 'a',
  status: 200,
  tries: [{ instance: 'i', result: 'answered', reason: '' }],
  latencyMs: 12,
  answeredMs: 10,
  report: undefined,
  decision,
});

type Found = { decisions: Record<string, unknown>[] } | undefined;

test('what was decided is found by the call’s id, and how it went', () => {
  const decisions = createDecisions(() => 0);
  const number = decisions.add(notes('call-0001'));
  assert.equal((decisions.find('call-0001') as Found)?.decisions[0]?.result, undefined);
  decisions.complete(outcome('call-0001', number));
  const result = { status: 200, latency_ms: 12, answered_ms: 10, tries: outcome('', 0).tries };
  assert.deepEqual((decisions.find('call-0001') as Found)?.decisions[0]?.result, result);
  assert.equal(decisions.find('call-0002'), undefined);
});

test('an id that a caller uses twice names both calls, and each gets its own outcome', () => {
  let now = 0;
  const decisions = createDecisions(() => now++);
  const first = decisions.add(notes('call-0001'));
  decisions.add(notes('call-0001'));
  decisions.complete(outcome('call-0001', first));
  const found = decisions.find('call-0001') as Found;
  assert.deepEqual(
    found?.decisions.map(({ result }) => result !== undefined),
    [false, true],
  );
});

test('an outcome of a former process finds no other call', () => {
  const decisions = createDecisions();
  const number = decisions.add(notes('call-0001'));
  decisions.complete(outcome('call-other', number));
  decisions.complete(outcome('call-0001', number + 2000));
  assert.equal((decisions.find('call-0001') as Found)?.decisions[0]?.result, undefined);
});

test('the last 2,000 are kept; those refused do not push the others out', () => {
  const decisions = createDecisions();
  decisions.add(notes('call-first'));
  for (let i = 0; i < 1999; i += 1) decisions.add(notes('call-more'));
  for (let i = 0; i < 10_000; i += 1) {
    decisions.add({ ...notes('call-bad'), refusal: { code: 'unauthenticated', message: 'no' } });
  }
  assert.notEqual(decisions.find('call-first'), undefined);
  assert.ok(((decisions.find('call-bad') as Found)?.decisions.length ?? 0) <= 1000);
  decisions.add(notes('call-last'));
  assert.equal(decisions.find('call-first'), undefined);
});

test('no credentials and no body are kept', async () => {
  const decisions = createDecisions();
  /** Of its own scope, so that nothing else holds what was handed in. */
  const add = () => {
    const headers = { authorization: 'secret-key' };
    const request = { ...notes('').request, headers, body: 'secret-body' };
    const refusal = Object.assign(new Error('no'), { code: 'forbidden', cause: headers });
    decisions.add({ ...notes('call-0001'), request });
    decisions.add({ ...notes('call-0001'), request, refusal });
    return new WeakRef(headers);
  };
  const headers = add();
  await new Promise(resolve => setImmediate(resolve));
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  assert.equal(headers.deref(), undefined);
  assert.equal((decisions.find('call-0001') as Found)?.decisions.length, 2);
});

test('numbers are those of the moment of the choice, of sixteen candidates, the chosen ones among them', () => {
  const balancer = createBalancer();
  const instances = Array.from({ length: 40 }, (_, i) => ({
    id: `i${i}`,
    weights: { passing: 100, warning: 10 },
    status: 'passing',
    reason: '',
    meta: {},
  })) as unknown as Instance[];
  balancer.pick({ name: 'a', strategy: 'ADAPTIVE', instances }, { key: '', now: 0 }, 1);
  const last = instances[39] as Instance;
  balancer.lease('earlier', last.id, 'call', 1000);
  const choice = { candidates: instances, chosen: [last], because: 'strategy' as const };
  const weighed = weigh(choice, { balancer, ejection: new Ejection() }, Date.now());
  balancer.lease('this', last.id, 'call', 1000);
  assert.equal(weighed.weighed.length, 16);
  assert.equal(weighed.weighed[0]?.id, last.id);
  assert.equal(weighed.weighed[0]?.inFlight, 1);
});

test('over HTTP: only by a loopback name, only ids, and nothing else', async t => {
  const decisions = createDecisions();
  decisions.add(notes('call-0001'));
  const server = createServer((request, response) => {
    if (!answerDecision(decisions.find, request, response)) response.writeHead(418).end();
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const status = (target: string, host = `127.0.0.1:${port}`) =>
    new Promise<string>(resolve => {
      const socket = connect(port, '127.0.0.1', () =>
        socket.end(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`),
      );
      socket.once('data', data => resolve(data.toString().slice(9, 12)));
    });
  assert.equal(await status('/decisions/call-0001'), '200');
  assert.equal(await status('/decisions/call-0001', 'localhost'), '200');
  assert.equal(await status('/decisions/call-0002'), '404');
  assert.equal(await status('/decisions/'), '404');
  assert.equal(await status('/decisions/call-0001', 'evil.example:80'), '403');
  assert.equal(await status('/metrics'), '418');
});

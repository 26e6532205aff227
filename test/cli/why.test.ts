import assert from 'node:assert/strict';
import { appendFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { closedPort } from '../kong/gateway-helpers.ts';
import { startTracedMesh } from '../kong-plugin/traced-mesh.ts';
import { until } from '../until.ts';
import { folderFor, mesh, type Result } from './helpers.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const CALL = 'call-0001';

/** Asks again while the log phase, or the disk, is behind the answer. */
async function untilSaid(ask: () => Promise<Result>, wanted: RegExp): Promise<Result> {
  let result: Result;
  const look = async () => {
    result = await ask();
    return wanted.test(result.out) && result;
  };
  return until(String(wanted), look, () => result.out);
}

test('one id tells of caller, policy, candidates, choice, tries, waiting, execution and trace', async t => {
  const traced = await startTracedMesh(t, { instances: 2 });
  const { callId } = await traced.execute(
    { command: 'tell', params: { password: 'secret-in-arguments' } },
    { traceparent: `00-${TRACE}-00f067aa0ba902b7-01`, cookie: 'secret-in-header' },
  );
  const { metricsUrl, audit, workers } = traced;
  const ask = (...more: string[]) =>
    mesh('why', callId, '--gateway', metricsUrl, '--audit', audit.gateway, '--audit', audit.workers, ...more);
  const { out, code } = await untilSaid(ask, /result[\s\S]*execution/);
  assert.equal(code, 0);
  const chosen = /chosen +(\S+) \(ADAPTIVE\) of 2/.exec(out)?.[1];
  assert.ok(
    workers.some(({ instance }) => instance === chosen),
    out,
  );
  for (const { instance } of workers) {
    assert.match(out, new RegExp(`[12] ${instance}  cost [\\d.]+, latency [\\d.]+ ms, \\d+ in flight`));
  }
  assert.match(out, /decision +\S+Z {2}POST \/api\/v1\/mcp\/wiretap\/execute\n/);
  assert.match(out, /caller +anonymous as \S+/);
  assert.match(out, /allowed by +policy \S+: everything/);
  assert.match(out, /result +200 in \d+ ms, answered after \d+ ms\n/);
  assert.match(out, new RegExp(`tries +${chosen}: answered\n`));
  assert.match(out, new RegExp(`execution +\\S+Z {2}tools/call tell at ${chosen}: ok\n`));
  assert.match(out, /time +\d+ ms: waited \d+ ms, ran \d+ ms\n/);
  assert.match(out, /attempts +1\n/);
  assert.match(out, /server +pid \d+, run 1\n/);
  assert.equal([...out.matchAll(new RegExp(`trace +${TRACE}\n`, 'g'))].length, 2);
  const json = await ask('--json');
  assert.doesNotMatch(out + json.out, /secret-in/);
  const found = JSON.parse(json.out);
  assert.equal(found.decisions[0].result.status, 200);
  assert.deepEqual(
    found.audit.map(({ event }: { event: string }) => event),
    ['decision', 'execution'],
  );
});

test('a refused call tells who was refused what, and why', async t => {
  const traced = await startTracedMesh(t);
  const response = await fetch(`${traced.url}/api/v1/mcp/nowhere/execute`, {
    method: 'POST',
    headers: { 'x-request-id': 'call-refused' },
  });
  await response.text();
  const { out, code } = await mesh('why', 'call-refused', '--gateway', traced.metricsUrl);
  assert.equal(code, 0);
  assert.match(out, /refused +unknown_service: /);
  assert.match(out, /No audit log tells of an execution/);
});

describe('audit logs', () => {
  const entry = (more: object) =>
    `${JSON.stringify({ time: '2026-11-22T10:00:00.000Z', event: 'execution', call_id: CALL, method: 'tools/call', name: 'echo', instance: 'i', outcome: 'ok', latency_ms: 5, queue_ms: 2, execution_ms: 3, attempts: 1, ...more })}\n`;

  test('of all processes, rotated ones too, are read; torn and foreign lines are passed over', async t => {
    const folder = folderFor(t);
    const line = (name: string) => writeFileSync(join(folder, name), entry({ name }));
    for (const name of ['a-12.jsonl', 'a-345.jsonl.1', 'a-12.jsonl.gz', 'a-x.jsonl', 'b-12.jsonl'])
      line(name);
    appendFileSync(
      join(folder, 'a-12.jsonl'),
      `{"call_id":"${CALL}"\n{"call_id":"call-0002","name":"${CALL}"}\n`,
    );
    const { out } = await mesh('why', CALL, '--audit', join(folder, 'a-%p.jsonl'), '--json');
    const names = JSON.parse(out).audit.map(({ name }: { name: string }) => name);
    assert.deepEqual(names.sort(), ['a-12.jsonl', 'a-345.jsonl.1']);
  });

  test('what callers wrote cannot move the cursor of who reads it', async t => {
    const path = join(folderFor(t), 'a.jsonl');
    writeFileSync(path, entry({ name: '\u001b[2Jgone\r\n  result  200 \u202eevil' }));
    const { out } = await mesh('why', CALL, '--audit', path);
    assert.match(out, /tools\/call \?\[2Jgone\?\? {2}result {2}200 \?evil at i: ok\n/);
  });

  test('second tries are told, with what went wrong before', async t => {
    const path = join(folderFor(t), 'a.jsonl');
    writeFileSync(path, entry({ attempts: 2, retried: ['child_crashed'] }));
    const { out } = await mesh('why', CALL, '--audit', path);
    assert.match(out, /attempts +2 \(again after child_crashed\)\n/);
  });
});

describe('what cannot be found', () => {
  test('an unknown call: exit code 1', async t => {
    const path = join(folderFor(t), 'a.jsonl');
    writeFileSync(path, '');
    const { out, code } = await mesh('why', CALL, '--audit', path);
    assert.equal(code, 1);
    assert.match(out, /Nobody knows it\./);
  });

  test('a gateway or a log that is not there is told, and the others are asked all the same', async t => {
    const path = join(folderFor(t), 'a.jsonl');
    writeFileSync(path, '{}\n');
    const gone = `http://127.0.0.1:${await closedPort()}`;
    const wrong = await startServer(t, 500);
    const { out, code } = await mesh(
      ...['why', CALL, '--gateway', gone, '--gateway', wrong, '--audit', `${path}x`, '--audit', path],
    );
    assert.equal(code, 1);
    assert.match(out, new RegExp(`could not ask ${gone}: cannot be asked \\(.*ECONNREFUSED`));
    assert.match(out, new RegExp(`could not ask ${wrong}: answers 500\n`));
    assert.match(out, /could not ask .*a\.jsonlx: there is no such file\n/);
  });

  const wrong: { desc: string; argv: string[]; says: RegExp }[] = [
    { desc: 'no id', argv: ['--audit', 'x'], says: /<call-id> is missing/ },
    { desc: 'no id that could be one', argv: ['../x', '--audit', 'x'], says: /"\.\.\/x" is no call id/ },
    { desc: 'an unknown option', argv: [CALL, '--gatway', 'x'], says: /did you mean/ },
  ];
  for (const { desc, argv, says } of wrong) {
    test(`${desc}: exit code 2`, async () => {
      const { code, err } = await mesh('why', ...argv);
      assert.equal(code, 2);
      assert.match(err, says);
    });
  }
});

async function startServer(t: TestContext, status: number): Promise<string> {
  const server = createServer((_request, response) => response.writeHead(status).end());
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

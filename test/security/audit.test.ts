import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startConsul } from '../../kong/dev/consul.ts';
import { workerSettings } from '../../mesh/settings.ts';
import { startWorker } from '../../workers/worker.ts';
import { collectCleanUps } from '../e2e/fleet-harness.ts';
import { until } from '../until.ts';
import {
  type Answer,
  INITIALIZE,
  readAnswer,
  scriptedService,
  silentLog,
  toolCall,
} from '../workers/helpers.ts';
import { startGateways, type TestGateways } from './gateways.ts';
import { makeKeys, newApiKey, workerKeys } from './keys.ts';

/** Who decided and who did what: one line at the gateway, one at the worker, linked by the call id; and no secret. */

const SECRET = 'secret-argument';
const keys = makeKeys();
const alice = newApiKey();
const policy = {
  api_keys: [{ id: 'alice', hash: alice.hash, roles: ['user'] }],
  roles: {
    user: { allow: [{ service: 'shop' }, { service: 'full' }], deny: [{ service: 'shop', tools: ['pid'] }] },
  },
};
const cleanUps = collectCleanUps();
let folder: string;
let consulUrl: string;
let mesh: TestGateways;
let calls = 0;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'audit-'));
  cleanUps.add(() => rmSync(folder, { recursive: true }));
  const consul = await startConsul();
  cleanUps.add(consul.close);
  consulUrl = consul.url;
  await startShop('shop', join(folder, 'worker'));
  await startShop('full', '/dev/full');
  mesh = await startGateways(cleanUps.add, {
    consulUrl,
    keys,
    policy,
    env: { MESH_AUDIT_LOG: join(folder, 'gateway') },
  });
  for (const name of ['shop', 'full']) await untilHealthy(mesh.url, name);
});
after(() => cleanUps.run());

test('each call is told once by the gateway and once by the worker, under its id', async () => {
  const args = { password: SECRET };
  const opened = await post('shop', INITIALIZE);
  const session = { 'mcp-session-id': opened.answer.headers.get('mcp-session-id') ?? '' };
  const told = [
    { ...(await post('shop/tools/echo', args)), outcome: 'ok' },
    { ...(await post('shop/execute', { command: 'echo', params: args })), outcome: 'ok' },
    { ...(await post('shop', toolCall(1, 'echo', args), session)), outcome: 'ok' },
    { ...(await post('shop/tools/pid', args)), outcome: 'forbidden' },
    { ...(await post('shop', toolCall(1, 'pid', args), session)), outcome: 'forbidden' },
    { ...(await post('shop/tools/crash', args)), outcome: 'child_crashed' },
  ];
  for (const { id, answer, outcome } of told) {
    assert.equal(answer.headers.get('x-request-id'), id, 'the caller has the id, too');
    const [decision, ...others] = await lines('gateway', id);
    assert.partialDeepStrictEqual(decision, {
      event: 'decision',
      call_id: id,
      principal: 'key:alice',
      client_ip: '127.0.0.1',
      method: 'POST',
      service: 'shop',
      outcome: 'allow',
    });
    const [execution, ...more] = await lines('worker', id);
    assert.partialDeepStrictEqual(execution, {
      event: 'execution',
      call_id: id,
      principal: 'key:alice',
      service: 'shop',
      method: 'tools/call',
      arguments_sha256: createHash('sha256').update(JSON.stringify(args)).digest('hex'),
      outcome,
    });
    assert.deepEqual([others.length, more.length], [0, 0], id);
  }
  // One that comes while its server is down is no execution.
  await until(
    'server that is up again',
    async () => (await post('shop/tools/echo', {})).answer.status === 200,
  );
});

test('what the gateway refuses is told by it alone, with the reason', async () => {
  const refused = [
    {
      ...(await post('shop/tools/echo', {}, { 'x-api-key': 'mk_wrong' })),
      principal: null,
      outcome: 'unauthenticated',
    },
    { ...(await post('nope/tools/echo', {})), principal: 'key:alice', outcome: 'forbidden' },
    { ...(await post('shop/nothing', {})), principal: null, outcome: 'unknown_path' },
    {
      ...(await post('shop/tools/echo', {}, { origin: 'http://evil.example' })),
      principal: null,
      outcome: 'forbidden',
    },
  ];
  for (const { id, principal, outcome } of refused) {
    const decisions = await lines('gateway', id);
    assert.deepEqual(
      decisions.map(line => [line.principal, line.outcome]),
      [[principal, outcome]],
    );
    assert.ok(!readFileSync(join(folder, 'worker'), 'utf8').includes(id));
  }
});

test('there are no keys, sessions, identities or arguments in it, and nothing that could forge a line', async () => {
  const opened = await post('shop', INITIALIZE);
  const session = opened.answer.headers.get('mcp-session-id') ?? '';
  const name = 'x\n{"event":"decision"}\u202e\u001b[31m';
  const args = { text: SECRET, authorization: SECRET };
  const { id } = await post('shop', toolCall(1, name, args), { 'mcp-session-id': session });
  const query = await post(`shop/tools/echo?token=${SECRET}&api_key=${alice.key}`, args, { cookie: SECRET });
  const [{ name: written } = {}] = await lines('worker', id);
  assert.equal(written, name);
  assert.equal(query.answer.status, 200, query.answer.text);
  await lines('worker', query.id);
  for (const file of ['gateway', 'worker']) {
    const text = readFileSync(join(folder, file), 'utf8');
    for (const secret of [SECRET, alice.key, session, 'x-mesh-identity', 'eyJ']) {
      assert.ok(!text.includes(secret), `${file} has ${secret}`);
    }
    assert.ok(!text.includes('\u202e') && !text.includes('\u001b'));
    for (const line of text.split('\n').filter(part => part !== '')) assert.ok(JSON.parse(line).call_id);
  }
});

test('arguments are in it when a worker is told to write them', async () => {
  await startShop('asked', join(folder, 'asked'), true);
  const asked = await startGateways(cleanUps.add, {
    consulUrl,
    keys,
    policy: { ...policy, roles: { user: { allow: [{ service: '*' }] } } },
  });
  await untilHealthy(asked.url, 'asked');
  const { id } = await post('asked/tools/echo', { text: SECRET }, {}, asked.url);
  const [{ arguments: written } = {}] = await lines('asked', id);
  assert.equal(written, JSON.stringify({ text: SECRET }));
});

test('a full disk loses lines and no call', async () => {
  const full = await startGateways(cleanUps.add, {
    consulUrl,
    keys,
    policy,
    env: { MESH_AUDIT_LOG: '/dev/full' },
  });
  await untilHealthy(full.url, 'full');
  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, i) => post('full/tools/echo', { text: String(i) }, {}, full.url)),
  );
  assert.deepEqual(
    answers.map(({ answer }) => [answer.status, answer.json.content[0].text]),
    answers.map((_, i) => [200, String(i)]),
  );
  await until('word of it', () =>
    full.lines.some(line => line.includes('audit log /dev/full cannot be written')),
  );
});

async function startShop(name: string, path: string, withArguments = false): Promise<void> {
  const worker = await startWorker({
    service: { ...scriptedService(), name, service_name: `mcp-${name}` },
    settings: {
      ...workerSettings({}),
      ...workerKeys(keys, name),
      consul: { url: consulUrl },
      advertiseAddress: '127.0.0.1',
      audit: { path, withArguments },
      drainIdleMs: 0,
      drainDeadlineMs: 100,
    },
    log: silentLog,
    register: true,
  });
  cleanUps.add(() => worker.stop());
}

async function untilHealthy(url: string, service: string): Promise<void> {
  await until('healthy worker', async () => {
    const headers = { 'x-api-key': alice.key };
    const response = await fetch(`${url}/api/v1/mcp/${service}/status`, { headers });
    return ((await response.json()) as { healthy?: number }).healthy === 1;
  });
}

async function post(
  path: string,
  body: object,
  headers: Record<string, string> = {},
  url = mesh.url,
): Promise<{ id: string; answer: Answer }> {
  calls += 1;
  const id = `call-of-test-${calls}.`;
  const response = await fetch(`${url}/api/v1/mcp/${path}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'x-api-key': alice.key,
      'x-request-id': id,
      ...headers,
    },
    body: JSON.stringify(body),
  });
  return { id, answer: await readAnswer(response) };
}

/** The lines of a call, as soon as there are any. */
function lines(file: string, id: string): Promise<Record<string, unknown>[]> {
  return until(`line of ${id} in ${file}`, () => {
    const path = join(folder, file);
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    const found = text.split('\n').filter(line => line.includes(`"call_id":"${id}"`));
    return found.length > 0 && found.map(line => JSON.parse(line) as Record<string, unknown>);
  });
}

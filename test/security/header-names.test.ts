import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { adHocService } from '../../mesh/registry.ts';
import { INITIALIZE, ready, startTestWorker, toolCall } from '../workers/helpers.ts';
import { hostileService, MODERN_META, modernHeaders } from '../workers/hostile/helpers.ts';
import { identityOf, makeKeys, policyOf, workerKeys } from './keys.ts';

/** A header that names something else than the body may have passed the policy of a proxy: it is refused in every way. */

const LENIENT = fileURLToPath(new URL('./lenient.mjs', import.meta.url));
const MISMATCH = -32020;
const lenient = adHocService({ name: 'lenient', command: process.execPath, args: [LENIENT] });

describe('a header that differs from the body', () => {
  const legacy = [
    { desc: 'another tool', headers: { 'mcp-name': 'get_public' } },
    { desc: 'another tool in Base64', headers: { 'mcp-name': '=?base64?Z2V0X3B1YmxpYw==?=' } },
    { desc: 'no Base64 of UTF-8', headers: { 'mcp-name': '=?base64?//8=?=' } },
    { desc: 'the tool twice', headers: { 'mcp-name': 'get_secret, get_secret' } },
    { desc: 'the tool in capitals', headers: { 'mcp-name': 'GET_SECRET' } },
    { desc: 'another method', headers: { 'mcp-method': 'tools/list', 'mcp-name': 'get_secret' } },
  ];
  for (const { desc, headers } of legacy) {
    test(`legacy request: ${desc}`, async t => {
      const worker = await startTestWorker(t, lenient);
      await ready(worker);
      const call = await worker.connect();
      const { status, json } = await call(toolCall(7, 'get_secret'), headers);
      assert.deepEqual([status, json.id, json.error?.code], [400, 7, MISMATCH]);
    });
  }

  test('legacy batch: it differs from one of them', async t => {
    const worker = await startTestWorker(t, lenient);
    await ready(worker);
    const body = { ...INITIALIZE, params: { ...INITIALIZE.params, protocolVersion: '2025-03-26' } };
    const { headers } = await worker.post('/mcp', body);
    const session = { 'mcp-session-id': headers.get('mcp-session-id') ?? '' };
    const batch = [toolCall(1, 'get_public'), toolCall(2, 'get_secret')];
    const refused = await worker.post('/mcp', batch, { ...session, 'mcp-name': 'get_public' });
    assert.deepEqual([refused.status, refused.json.error?.code], [400, MISMATCH]);
    assert.equal((await worker.post('/mcp', batch, session)).json.length, 2);
  });

  test('REST: a tool by its path, as a command, or as an MCP method', async t => {
    const worker = await startTestWorker(t, lenient);
    await ready(worker);
    const asks = [
      ['/tools/get_secret', '{}'],
      ['/execute', '{"command":"get_secret"}'],
      ['/execute', '{"command":"tools/call","params":{"name":"get_secret"}}'],
    ] as const;
    for (const [path, body] of asks) {
      const refused = await worker.post(path, body, { 'mcp-name': 'get_public' });
      assert.deepEqual([refused.status, refused.json.code], [400, 'invalid_request'], path);
      const same = await worker.post(path, body, { 'mcp-name': 'get_secret', 'mcp-method': 'tools/call' });
      assert.deepEqual([same.status, same.json.content?.[0]?.text], [200, 'ran:get_secret'], path);
    }
  });

  test('a legacy request whose header says the same is served', async t => {
    const worker = await startTestWorker(t, lenient);
    await ready(worker);
    const call = await worker.connect();
    for (const name of ['get_secret', '=?base64?Z2V0X3NlY3JldA==?=']) {
      const { json } = await call(toolCall(1, 'get_secret'), {
        'mcp-name': name,
        'mcp-method': 'tools/call',
      });
      assert.equal(json.result?.content[0].text, 'ran:get_secret');
    }
  });
});

test('the parameter headers of a tool are not told to who may not call it', async t => {
  const keys = makeKeys();
  const worker = await startTestWorker(
    t,
    hostileService({ PARAM_HEADERS: '1' }),
    workerKeys(keys, 'hostile'),
  );
  await ready(worker);
  const policy = policyOf({ roles: { user: { allow: [{ service: 'hostile', tools: ['pid'] }] } } });
  const identity = identityOf(keys, { service: 'hostile', policy, roles: ['user'] });
  const ask = async (name: string, args: object) => {
    const params = { name, arguments: args, _meta: MODERN_META };
    const body = { jsonrpc: '2.0', id: 1, method: 'tools/call', params };
    const { status, text } = await worker.post('/mcp', body, {
      ...identity,
      ...modernHeaders('tools/call', name),
    });
    return { status, text: text.replaceAll(name, 'NAME').replace(/"call_id":"[^"]*"/, '') };
  };
  assert.deepEqual(await ask('echo', { text: 'x' }), await ask('none', { text: 'x' }));
});

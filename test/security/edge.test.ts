import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startConsul } from '../../kong/dev/consul.ts';
import { collectCleanUps } from '../e2e/fleet-harness.ts';
import { type Answer, type Send, send } from '../kong/gateway-helpers.ts';
import { until } from '../until.ts';
import { startGateways, type TestGateways } from './gateways.ts';
import { makeKeys, newApiKey } from './keys.ts';
import { genuine, type RawInstance, startRawInstance } from './raw-instance.ts';

/** What passes the gateway, byte by byte, as an instance sees it. */

const ORIGIN = 'https://app.example.com';
const keys = makeKeys();
const alice = newApiKey();
const bob = newApiKey();
const policy = {
  api_keys: [
    { id: 'alice', hash: alice.hash, roles: ['user'] },
    { id: 'bob', hash: bob.hash, roles: ['other'] },
  ],
  roles: { user: { allow: [{ service: 'shop' }] }, other: { allow: [{ service: 'elsewhere' }] } },
};
const cleanUps = collectCleanUps();
let mesh: TestGateways;
let shop: RawInstance;
let tag = 0;

before(async () => {
  const consul = await startConsul();
  cleanUps.add(consul.close);
  shop = await startRawInstance(cleanUps.add, {
    consulUrl: consul.url,
    service: 'shop',
    id: 'mcp-shop-host-1',
    prove: genuine(keys, 'shop'),
  });
  mesh = await startGateways(cleanUps.add, {
    consulUrl: consul.url,
    keys,
    policy,
    env: { MESH_ALLOWED_ORIGINS: ORIGIN },
  });
  await until('healthy instance', async () => {
    const { text } = await ask({ method: 'GET', path: '/api/v1/mcp/shop/status' });
    return text.includes('"healthy":1');
  });
});
after(() => cleanUps.run());

describe('what the caller sends of himself', () => {
  test('credentials never reach an instance, however they are written', async () => {
    const secrets = ['secret-cookie', 'secret-proxy', 'secret-consumer', 'secret-credential', alice.key];
    const credentials = [
      { authorization: `Bearer ${alice.key}` },
      { authorization: `bearer   ${alice.key}` },
      { 'x-api-key': alice.key },
      { 'X-API-Key': alice.key, Authorization: `Bearer ${alice.key}` },
    ];
    for (const headers of credentials) {
      const seen = await passed({
        'proxy-authorization': 'Basic secret-proxy',
        cookie: ['a=secret-cookie', 'b=secret-cookie'],
        'x-consumer-username': 'secret-consumer',
        'x-credential-identifier': 'secret-credential',
        ...(headers as Record<string, string>),
      });
      for (const secret of secrets) assert.ok(!seen.includes(secret), `${secret} in ${seen}`);
      assert.doesNotMatch(
        seen,
        /^(authorization|x-api-key|cookie|proxy-authorization|x-consumer|x-credential)/im,
      );
    }
  });

  test('the mesh’s own headers are taken from nobody', async () => {
    const forged = 'eyJhbGciOiJub25lIn0.e30.';
    const seen = await passed({
      'x-mesh-identity': [forged, forged],
      'X-MESH-Identity': forged,
      'x-mesh-forward': 'forged',
      'x-mesh-anything': 'forged',
      'x-api-key': alice.key,
    });
    assert.ok(!seen.includes(forged) && !seen.includes('forged'), seen);
    const [identity = '', ...more] = [...seen.matchAll(/^x-mesh-[^:]*: (.*)$/gim)].map(
      ([, value]) => value ?? '',
    );
    assert.deepEqual([more.length, claimsOf(identity).sub], [0, 'key:alice'], seen);
  });

  test('a forged identity hidden behind 200 other headers is answered 431 and reaches nobody', async () => {
    const before = shop.requests.length;
    for (const at of [0, 100, 200, 249]) {
      const headers = Object.fromEntries(
        Array.from({ length: 250 }, (_, i) =>
          i === at ? ['x-mesh-identity', 'forged'] : [`x-filler-${i}`, 'x'],
        ),
      );
      const answer = await ask({ headers });
      assert.equal(answer.status, 431, `at ${at}`);
    }
    assert.equal(shop.requests.length, before);
  });
});

test('no spelling of a path leads to a worker’s own routes, or to another service', async () => {
  const rests = [
    '/../metrics',
    '/tools/../metrics',
    '/tools/%2e%2e/metrics',
    '/tools/..%2fmetrics',
    '/tools/..',
    '/tools/%2e%2e',
    '/tools/x%2f..%2f..%2fmetrics',
    '/tools//metrics',
    '//metrics',
    '/tools/x;/../../metrics',
    '/tools/x%3f/../metrics',
    '/tools/x%23y',
    '/tools/x\\..\\metrics',
    '/tools/%00',
    '/./metrics',
    '/proof?nonce=nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn',
    '/health',
    '/tools/x?/../../metrics',
  ];
  const starts = [
    '/api/v1/mcp/shop',
    '/api/v1/mcp/elsewhere/../shop',
    '/api/v1/mcp/%73hop',
    '/api/v1/mcp/./shop',
  ];
  const before = shop.calls().length;
  for (const start of starts) {
    for (const method of ['GET', 'POST'])
      for (const rest of rests) await ask({ method, path: `${start}${rest}` });
  }
  const passed = shop.calls().slice(before);
  assert.ok(passed.length > 0);
  for (const request of passed) {
    const [line = ''] = request.split('\r\n', 1);
    assert.match(line, /^(GET|POST) \/(mcp|execute|tools|tools\/[^/\\?]*)(\?\S*)? HTTP\/1\.1$/, line);
    assert.doesNotMatch(line, /^\S+ \/tools\/\.\.?($|[?/ ])/, line);
    assert.equal(claimsOf(/^x-mesh-identity: (.*)$/im.exec(request)?.[1] ?? '').svc, 'shop');
  }
});

describe('DNS rebinding', () => {
  for (const headers of [
    { host: 'evil.example' },
    { host: 'evil.example:80' },
    { host: 'localhost.evil.example' },
    { host: '127.0.0.1.evil.example' },
    { origin: 'http://evil.example' },
    { origin: 'https://app.example.com.evil.example' },
    { origin: 'http://localhost.evil.example' },
    { origin: 'null' },
  ]) {
    test(`${JSON.stringify(headers)} is refused, with a good key, too`, async () => {
      const before = shop.requests.length;
      for (const path of [
        '/api/v1/mcp',
        '/api/v1/mcp/shop',
        '/api/v1/mcp/shop/tools/x',
        '/api/v1/mcp/shop/status',
      ]) {
        const { status } = await ask({ path, headers: { 'x-api-key': alice.key, ...headers } });
        assert.equal(status, 403, path);
      }
      assert.equal(shop.requests.length, before);
    });
  }

  test('an Origin that the gateway allows passes, and so does loopback', async () => {
    for (const origin of [ORIGIN, 'http://localhost:3000', 'http://127.0.0.1']) {
      const seen = await passed({ origin, 'x-api-key': alice.key });
      assert.match(seen, /^x-mesh-identity: /im);
    }
  });
});

describe('a refusal tells nothing', () => {
  /** Answers without the call id and the name that was asked for. */
  const told = async (name: string, path: string, headers: Record<string, string>, method = 'POST') => {
    const { status, headers: got, text } = await ask({ method, path: `/api/v1/mcp/${name}${path}`, headers });
    const callId = String(got['x-request-id']);
    const kept = Object.entries(got).filter(([header]) => !/^(date|x-request-id|x-kong-.*)$/.test(header));
    return JSON.stringify([status, kept, text]).replaceAll(name, 'NAME').replaceAll(callId, 'ID');
  };
  for (const [path, method] of [
    ['', 'POST'],
    ['', 'GET'],
    ['/execute', 'POST'],
    ['/tools', 'GET'],
    ['/tools/x', 'POST'],
    ['/status', 'GET'],
    ['/nothing', 'POST'],
  ] as const) {
    test(`of whether the service exists: ${method} ${path || '/'}`, async () => {
      const without = await told('shop', path, {}, method);
      assert.equal(await told('nope', path, {}, method), without);
      const forbidden = await told('shop', path, { 'x-api-key': bob.key }, method);
      assert.equal(await told('nope', path, { 'x-api-key': bob.key }, method), forbidden);
      assert.match(forbidden, path === '/nothing' ? /^\[404/ : /^\[403/);
    });
  }

  test('and the list of services has none that the caller may not use', async () => {
    const list = async (key: string) =>
      (await ask({ method: 'GET', path: '/api/v1/mcp', headers: { 'x-api-key': key } })).text;
    assert.match(await list(alice.key), /"service":"shop"/);
    assert.equal(await list(bob.key), '{"services":[]}');
  });
});

describe('without the plugin server', () => {
  test('nothing passes, whatever the caller brings', async () => {
    const identity = /^x-mesh-identity: (.*)$/im.exec(await passed({ 'x-api-key': alice.key }))?.[1] ?? '';
    const [gateway] = mesh.gateways;
    const pid = gateway.pluginServerPid() ?? 0;
    process.kill(pid, 'SIGSTOP');
    process.kill(pid, 'SIGKILL');
    const before = shop.calls().length;
    for (let i = 0; i < 5; i += 1) {
      const answer = await ask({ headers: { 'x-api-key': alice.key, 'x-mesh-identity': identity } });
      assert.ok([500, 503].includes(answer.status), `${answer.status} ${answer.text}`);
    }
    assert.equal(shop.calls().length, before);
    await until('a new plugin server', () => gateway.pluginServerPid() !== pid && gateway.pluginServerPid());
    await until('call that passes again', async () => (await ask({})).status === 200);
  });
});

function ask(options: Send): Promise<Answer> {
  const [gateway] = mesh.gateways;
  const { headers = { 'x-api-key': alice.key }, ...rest } = options;
  return send(gateway, { method: 'POST', path: '/api/v1/mcp/shop', ...rest, headers });
}

/** The request as the instance got it. */
async function passed(headers: Record<string, string | string[]>): Promise<string> {
  tag += 1;
  const { status, text } = await ask({ headers: { ...headers, 'x-tag': `tag-${tag}.` }, body: '{}' });
  assert.equal(status, 200, text);
  const seen = shop.calls().find(request => request.includes(`tag-${tag}.`));
  assert.ok(seen);
  return seen;
}

function claimsOf(token: string): { sub: string; svc: string } {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
}

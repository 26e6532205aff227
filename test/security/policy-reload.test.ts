import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { stringify } from 'yaml';
import { startConsul } from '../../kong/dev/consul.ts';
import { collectCleanUps } from '../e2e/fleet-harness.ts';
import { type Answer, send } from '../kong/gateway-helpers.ts';
import { until } from '../until.ts';
import { startGateways, type TestGateways } from './gateways.ts';
import { makeKeys, newApiKey } from './keys.ts';
import { genuine, type RawInstance, startRawInstance } from './raw-instance.ts';

/**
 * A policy that changes while calls go on. A gateway looks at the file each second, and from its next look on nobody
 * gets in by the old one, whatever was cached. An identity outlives it by 60 s at most, at the worker, and no caller
 * ever has one in his hands.
 */

const AUDIENCE = 'https://mesh.example.com/api/v1/mcp';
const keys = makeKeys();
const alice = newApiKey();
const bob = newApiKey();
const cleanUps = collectCleanUps();
let policy: { api_keys: object[]; jwt: object[]; roles: Record<string, object> };
let token: string;
let mesh: TestGateways;
let shop: RawInstance;

before(async () => {
  const consul = await startConsul();
  cleanUps.add(consul.close);
  const issuer = await startIssuer();
  policy = {
    api_keys: [
      { id: 'alice', hash: alice.hash, roles: ['user'] },
      { id: 'bob', hash: bob.hash, roles: ['user'] },
    ],
    jwt: [{ issuer, jwks_uri: `${issuer}/jwks`, audience: AUDIENCE, algorithms: ['ES256'] }],
    roles: { user: { allow: [{ service: 'shop' }] } },
  };
  const options = { consulUrl: consul.url, service: 'shop', id: 'mcp-shop-host-1' };
  shop = await startRawInstance(cleanUps.add, { ...options, prove: genuine(keys, 'shop') });
  mesh = await startGateways(cleanUps.add, { consulUrl: consul.url, keys, policy });
  await until('healthy instance', async () => (await call(alice.key)).status === 200);
});
after(() => cleanUps.run());

test('a file that cannot be used leaves the old policy in force, says file and line, and is counted', async () => {
  assert.equal(await mesh.metric('gateway_policy_refusals_total'), 0);
  const broken: [text: string, place: RegExp][] = [
    [`${stringify(policy)}anonymous: user\nrolls: {}\n`, /access\.yaml:\d+: rolls: .*did you mean "roles"/],
    ['', /access\.yaml/],
  ];
  for (const [i, [text, place]] of broken.entries()) {
    write(text);
    await until(
      `refusal of the ${i + 1}th text`,
      async () => (await mesh.metric('gateway_policy_refusals_total')) === i + 1,
    );
    await until(
      'its place on stderr',
      () => mesh.lines.some(line => place.test(line)),
      () => mesh.lines.join('\n'),
    );
    assert.equal((await call(alice.key)).status, 200, 'who could call still can');
    assert.equal((await call(token)).status, 200);
    assert.equal((await call(undefined)).status, 401, 'and nobody else');
  }
  write(stringify(policy));
});

test('a key that was taken out opens nothing from the next look at the file on, cached or not', async () => {
  await Promise.all(
    [alice.key, bob.key, token].map(async key => assert.equal((await call(key)).status, 200)),
  );
  write(stringify({ ...policy, api_keys: policy.api_keys.slice(1) }));
  await until('end of the key', async () => (await call(alice.key)).status === 401);
  const calls = shop.calls().length;
  for (let i = 0; i < 5; i += 1) assert.equal((await call(alice.key)).status, 401);
  assert.equal(shop.calls().length, calls);
  assert.equal((await call(bob.key)).status, 200);
});

test('so does a token whose issuer was taken out, and a role that lost the service', async () => {
  assert.equal((await call(token)).status, 200);
  write(stringify({ ...policy, jwt: [] }));
  await until('end of the token', async () => (await call(token)).status === 401);
  write(stringify({ ...policy, roles: { user: { allow: [{ service: 'other' }] } } }));
  await until('end of the permission', async () => (await call(bob.key)).status === 403);
  await until('end of the permission', async () => (await call(token)).status === 403);
  const calls = shop.calls().length;
  for (const key of [bob.key, token]) assert.equal((await call(key)).status, 403);
  assert.equal(shop.calls().length, calls);
});

test('a new policy is in the identities at once, though the old ones are good for some seconds', async () => {
  write(stringify(policy));
  await until('permission', async () => (await call(bob.key)).status === 200);
  const [before] = identities();
  write(stringify({ ...policy, roles: { user: { allow: [{ service: 'shop', tools: ['only_this'] }] } } }));
  await until('another identity', async () => {
    await call(bob.key);
    return identities()[0]?.policy_version !== before?.policy_version;
  });
  assert.deepEqual(identities()[0]?.grants.allow, [{ tools: ['only_this'] }]);
});

/** What the instance was told of its callers, newest first. */
function identities(): { policy_version: string; grants: { allow: object[] } }[] {
  return shop
    .calls()
    .toReversed()
    .map(request => /^x-mesh-identity: (.*)$/im.exec(request)?.[1] ?? '')
    .map(text => JSON.parse(Buffer.from(text.split('.')[1] ?? '', 'base64url').toString()));
}

function write(text: string): void {
  writeFileSync(mesh.policyPath, text);
}

function call(key: string | undefined): Promise<Answer> {
  const [gateway] = mesh.gateways;
  const headers: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
  return send(gateway, { method: 'POST', path: '/api/v1/mcp/shop', headers, body: '{}' });
}

/** An issuer of tokens with one key, and one token of it. */
async function startIssuer(): Promise<string> {
  const { privateKey, publicKey } = await generateKeyPair('ES256');
  const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k', alg: 'ES256' }] });
  const server = createServer((_request, response) => response.end(jwks));
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  cleanUps.add(() => {
    server.close();
    server.closeAllConnections();
  });
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  token = await new SignJWT({ roles: ['user'] })
    .setProtectedHeader({ alg: 'ES256', kid: 'k' })
    .setIssuer(issuer)
    .setAudience(AUDIENCE)
    .setSubject('carol')
    .setExpirationTime('1h')
    .sign(privateKey);
  return issuer;
}

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { startConsul } from '../../kong/dev/consul.ts';
import { collectCleanUps } from '../e2e/fleet-harness.ts';
import { put } from '../kong/consul-helpers.ts';
import { type Answer, send } from '../kong/gateway-helpers.ts';
import { until } from '../until.ts';
import { startGateways, type TestGateways } from './gateways.ts';
import { makeKeys, newApiKey } from './keys.ts';
import { announce, genuine, type RawInstance, startRawInstance } from './raw-instance.ts';

/** Who merely writes into Consul gets not one byte but the question that he cannot answer. */

const CALLS = 30;
const SECRET = 'secret-in-arguments';
const keys = makeKeys();
const alice = newApiKey();
const policy = {
  api_keys: [{ id: 'alice', hash: alice.hash, roles: ['user'] }],
  roles: { user: { allow: [{ service: '*' }] } },
};
const cleanUps = collectCleanUps();
let consulUrl: string;
let mesh: TestGateways;
let shop: RawInstance;

before(async () => {
  const consul = await startConsul();
  cleanUps.add(consul.close);
  consulUrl = consul.url;
  shop = await start('shop', 'mcp-shop-host-1', genuine(keys, 'shop'));
  mesh = await startGateways(cleanUps.add, { consulUrl, keys, policy });
  await untilStates('shop', { 'mcp-shop-host-1': 'passing' });
});
after(() => cleanUps.run());

describe('a fake instance of a service', () => {
  test('that knows no key, relays the question, or belongs to another service gets no call', async () => {
    const relay = async (nonce: string) =>
      (await fetch(`http://127.0.0.1:${shop.port}/proof?nonce=${nonce}`)).json() as Promise<object>;
    const fakes = [
      await start('shop', 'fake-silent', undefined),
      await start('shop', 'fake-random', (_, { id, port }) => proofOf(id, port, randomBytes(32))),
      await start('shop', 'fake-relay', relay),
      await start('shop', 'fake-relay-lying', async (nonce, { id, port }) => ({
        ...(await relay(nonce)),
        instance: id,
        port,
      })),
      // Taken over, or of another team: its own key is good, for its own service.
      await start('shop', 'fake-neighbour', genuine(keys, 'neighbour')),
      await start('shop', 'fake-other-mesh', genuine(makeKeys(), 'shop')),
    ];
    await untilStates('shop', {
      'mcp-shop-host-1': 'passing',
      ...Object.fromEntries(fakes.map(({ id }) => [id, 'critical'])),
    });
    for (let i = 0; i < CALLS; i += 1) assert.equal((await callShop()).status, 200);
    assert.equal(shop.calls().length, CALLS);
    for (const fake of fakes) assertOnlyAsked(fake);
    const { text } = await ask('GET', 'shop/status');
    assert.match(text, /"id":"fake-relay","address":"[^"]*","state":"critical","reason":"has not proven/);
  });

  test('gets none either when nothing else is left', async () => {
    const bait = await start('bait', 'fake-bait', async nonce => ({ nonce, macs: [nonce] }));
    await untilStates('bait', { 'fake-bait': 'critical' });
    for (const [method, path, body] of [
      ['POST', 'bait', '{}'],
      ['GET', 'bait', undefined],
      ['POST', 'bait/execute', '{"command":"x"}'],
      ['GET', 'bait/tools', undefined],
      ['POST', 'bait/tools/x', '{}'],
    ] as const) {
      const answer = await ask(method, path, body);
      assert.deepEqual([answer.status, answer.text.includes('has not proven')], [503, true], path);
    }
    assertOnlyAsked(bait);
  });

  test('at the address that a genuine instance is said to have moved to gets no call', async () => {
    const moved = await start('moved', 'mcp-moved-host-1', genuine(keys, 'moved'));
    await untilStates('moved', { 'mcp-moved-host-1': 'passing' });
    assert.equal((await ask('POST', 'moved', '{}')).status, 200);
    const fake = await start('decoy', 'fake-decoy', undefined);
    await announce({ consulUrl, service: 'moved', id: moved.id }, fake.port);
    await untilStates('moved', { 'mcp-moved-host-1': 'critical' });
    const calls = moved.calls().length;
    for (let i = 0; i < 5; i += 1) assert.equal((await ask('POST', 'moved', SECRET)).status, 503);
    assertOnlyAsked(fake);
    assert.equal(moved.calls().length, calls);
    // The entry is right again: it is trusted after it has proven itself again.
    await announce({ consulUrl, service: 'moved', id: moved.id }, moved.port);
    await untilStates('moved', { 'mcp-moved-host-1': 'passing' });
    assert.equal((await ask('POST', 'moved', '{}')).status, 200);
  });

  test('of one service is no instance of another, by whichever name it calls itself', async () => {
    const own = await start('own', 'mcp-own-host-1', genuine(keys, 'own'));
    const written = await put(consulUrl, 'agent/service/register', {
      ID: 'own-as-shop',
      Name: 'mcp-own',
      Address: '127.0.0.1',
      Port: own.port,
      Tags: ['mcp'],
      Meta: { mcp_server: 'shop', started_at: '1' },
      Checks: [{ CheckID: 'own-as-shop:ttl', TTL: '600s', Status: 'passing' }],
    });
    assert.equal(written.status, 200);
    await untilStates('own', { 'mcp-own-host-1': 'passing' });
    for (let i = 0; i < CALLS; i += 1) assert.equal((await callShop()).status, 200);
    assertOnlyAsked(own);
  });
});

test('an identity names the service it is for, and no caller’s key', () => {
  const tokens = shop.calls().map(request => /^x-mesh-identity: (.*)$/im.exec(request)?.[1] ?? '');
  assert.ok(tokens.length > 0);
  for (const token of tokens) {
    const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    assert.deepEqual([claims.sub, claims.svc, claims.exp - claims.iat], ['key:alice', 'shop', 60]);
    assert.ok(!JSON.stringify(claims).includes('mk_'));
  }
});

/** Each byte that it got belongs to the question for a proof, which holds nothing of any caller. */
function assertOnlyAsked(fake: RawInstance): void {
  assert.ok(fake.requests.length > 0, `${fake.id} was asked`);
  assert.equal(fake.bytes(), fake.requests.join('').length);
  for (const request of fake.requests) {
    assert.match(
      request,
      /^GET \/proof\?nonce=[\w-]{43} HTTP\/1\.1\r\nHost: 127\.0\.0\.1:\d+\r\nConnection: close\r\n\r\n$/,
    );
  }
}

function start(
  service: string,
  id: string,
  prove: Parameters<typeof startRawInstance>[1]['prove'],
): Promise<RawInstance> {
  return startRawInstance(cleanUps.add, { consulUrl, service, id, ...(prove ? { prove } : {}) });
}

function proofOf(instance: string, port: number, mac: Buffer): object {
  return { instance, address: '127.0.0.1', port, macs: [mac.toString('base64url')] };
}

function ask(method: string, path: string, body?: string): Promise<Answer> {
  const [gateway] = mesh.gateways;
  const headers = { 'x-api-key': alice.key };
  return send(gateway, {
    method,
    path: `/api/v1/mcp/${path}`,
    headers,
    ...(body === undefined ? {} : { body }),
  });
}

function callShop(): Promise<Answer> {
  return ask('POST', 'shop/execute', JSON.stringify({ command: SECRET }));
}

/** Waits until the gateway says this of each instance, the questions to them included. */
async function untilStates(service: string, wanted: Record<string, string>): Promise<void> {
  let seen = '';
  const asked = (details: { id: string; state: string; reason?: string }[]) =>
    details.every(({ reason }) => !/not been asked/.test(reason ?? ''));
  await until(
    `states of ${service}`,
    async () => {
      seen = (await ask('GET', `${service}/status`)).text;
      const { details = [] } = JSON.parse(seen);
      const states = Object.fromEntries(
        details.map(({ id, state }: { id: string; state: string }) => [id, state]),
      );
      return asked(details) && Object.entries(wanted).every(([id, state]) => states[id] === state);
    },
    () => seen,
  );
}

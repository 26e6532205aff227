import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { fastify } from 'fastify';
import {
  createNonce,
  findProofFault,
  type InstancePlace,
  isNonce,
  makeProof,
} from '../../mesh/instance-proof.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { addProofRoute } from '../../workers/proof-route.ts';

const place: InstancePlace = {
  service: 'github',
  id: 'mcp-github-host-1',
  address: '10.0.0.5',
  port: 11_100,
};
const keys = [randomBytes(32), randomBytes(32)];

test('a proof is good for its nonce, service, id, address and port, and for no other', () => {
  const nonce = createNonce();
  const proof = makeProof(keys, nonce, place);
  assert.equal(findProofFault(proof, keys, nonce, place), undefined);
  const others: [Partial<InstancePlace>, RegExp][] = [
    [{ service: 'files' }, /wrong key: .* service "files"/],
    [{ id: 'mcp-github-host-2' }, /another instance answers/],
    [{ address: '10.0.0.6' }, /does not advertise \(MESH_ADVERTISE_ADDRESS\)/],
    [{ port: 11_101 }, /does not advertise/],
  ];
  for (const [other, wanted] of others) {
    const elsewhere = { ...place, ...other };
    assert.match(findProofFault(proof, keys, nonce, elsewhere) ?? '', wanted);
    // Nor when the answer says of itself what the asker wants to hear.
    const lie = { ...proof, instance: elsewhere.id, address: elsewhere.address, port: elsewhere.port };
    assert.match(findProofFault(lie, keys, nonce, elsewhere) ?? '', /wrong key/);
  }
  assert.match(findProofFault(proof, keys, createNonce(), place) ?? '', /wrong key/);
});

test('parts cannot be shifted into one another', () => {
  const nonce = createNonce();
  const proof = makeProof(keys, nonce, { ...place, id: 'a', address: 'b' });
  for (const [id, address] of [
    ['a\0b', ''],
    ['', 'a\0b'],
    ['ab', ''],
    ['a\0', 'b'],
    ['a', 'b\0'],
  ] as const) {
    assert.ok(findProofFault(proof, keys, nonce, { ...place, id, address }), JSON.stringify([id, address]));
  }
});

test('any key that both sides hold will do, so that either may be changed first', () => {
  const [fresh, old] = [randomBytes(32), randomBytes(32)];
  const nonce = createNonce();
  const check = (asker: Buffer[], worker: Buffer[]) =>
    findProofFault(makeProof(worker, nonce, place), asker, nonce, place) === undefined;
  assert.ok(check([fresh, old], [old]));
  assert.ok(check([old], [fresh, old]));
  assert.ok(check([fresh, old], [fresh]));
  assert.ok(!check([fresh], [old]));
  assert.ok(!check([], [old]));
  assert.ok(!check([fresh], []));
});

test('an address has one meaning in all its spellings', () => {
  const nonce = createNonce();
  const check = (advertised: string, registered: string) => {
    const proof = makeProof(keys, nonce, { ...place, address: advertised });
    return findProofFault(proof, keys, nonce, { ...place, address: registered }) === undefined;
  };
  assert.ok(check('::1', '0:0:0:0:0:0:0:1'));
  assert.ok(check('fe80::AB', 'FE80:0::ab'));
  assert.ok(check('Worker-1.internal', 'worker-1.INTERNAL'));
  assert.ok(check('fe80::1%eth0', 'fe80::1%eth0'));
  assert.ok(!check('::1', '::2'));
  assert.ok(!check('127.0.0.1', '127.0.0.2'));
  assert.ok(!check('fe80::1%eth0', 'fe80::1%eth1'));
});

test('an answer that is no proof is told from one by a wrong key', () => {
  const nonce = createNonce();
  const answers = [undefined, null, 'text', 7, [], {}, { macs: 'x' }, { macs: { length: 1 } }];
  for (const answer of answers)
    assert.equal(findProofFault(answer, keys, nonce, place), 'its answer is no proof');
  const { macs: _macs, ...itself } = makeProof(keys, nonce, place);
  for (const macs of [[], [null], [''], ['x'.repeat(43)], [[]], [{}], Array(1000).fill('A')]) {
    assert.match(findProofFault({ ...itself, macs }, keys, nonce, place) ?? '', /wrong key/);
  }
});

test('the route answers by what the worker knows of itself, whatever the request says', async t => {
  const url = await startRoute(t);
  const nonce = createNonce();
  const headers = { host: '10.9.9.9:1', 'x-forwarded-host': '10.9.9.9', forwarded: 'host=10.9.9.9' };
  const response = await fetch(`${url}/proof?nonce=${nonce}&address=10.9.9.9&port=1&instance=x`, { headers });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('cache-control'), 'no-store');
  assert.equal(findProofFault(await response.json(), keys, nonce, place), undefined);
});

test('the route signs nothing but a nonce: what could be read as something else is refused', async t => {
  const url = await startRoute(t);
  const bad = [
    '',
    'x'.repeat(21),
    'x'.repeat(87),
    `${'x'.repeat(30)}%00session`,
    `${'x'.repeat(30)}.payload`,
    `${'x'.repeat(30)}%0a`,
    `${'x'.repeat(30)}=`,
    `${'ä'.repeat(30)}`,
    `${'x'.repeat(30)}&nonce=${'y'.repeat(30)}`,
  ];
  for (const nonce of bad) {
    const response = await fetch(`${url}/proof?nonce=${nonce}`);
    assert.equal(response.status, 400, nonce);
    assert.match(await response.text(), /16 to 64 random bytes in base64url/);
  }
  assert.equal((await fetch(`${url}/proof`)).status, 400);
  for (const bytes of [16, 32, 64]) assert.ok(isNonce(randomBytes(bytes).toString('base64url')));
});

test('a root key gives each service a key of its own', () => {
  const rootKey = randomBytes(32);
  const nonce = createNonce();
  const files = [deriveServiceKey(rootKey, 'files')];
  const github = [deriveServiceKey(rootKey, 'github')];
  assert.match(findProofFault(makeProof(files, nonce, place), github, nonce, place) ?? '', /wrong key/);
});

async function startRoute(t: TestContext): Promise<string> {
  const app = fastify();
  const { service, id, address, port } = place;
  addProofRoute(app, { service, keys, instanceId: () => id, address: () => address, port: () => port });
  t.after(() => app.close());
  return app.listen({ host: '127.0.0.1', port: 0 });
}

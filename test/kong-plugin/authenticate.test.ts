import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createAuthenticator } from '../../kong-plugin/authenticate.ts';
import { AuthenticationError, challenge } from '../../kong-plugin/resource-metadata.ts';
import type { AccessPolicy, ApiKey } from '../../mesh/access-policy.ts';
import { toMeshError } from '../../mesh/errors.ts';

const ISSUER = 'https://idp.example.com';
const AUDIENCE = 'https://mesh.example.com/api/v1/mcp';
const DAY = 86_400_000;
const role = {
  allow: [],
  deny: [],
  mesh: [],
  rateLimit: undefined,
  quota: undefined,
  inFlight: undefined,
  toolRates: [],
};
const pair = await generateKeyPair('ES256');

const ciKey = newKey();
const oldKey = newKey();
const ciPrincipal = { principal: 'key:ci-bot', roles: ['developer'] };

function newKey(): string {
  return `mk_${randomBytes(32).toString('base64url')}`;
}

function stored(id: string, key: string, expires?: number): ApiKey {
  return { id, hash: createHash('sha256').update(key).digest(), roles: ['developer'], expires };
}

function makeToken(claims: Record<string, unknown> = {}): Promise<string> {
  const good = { iss: ISSUER, aud: AUDIENCE, sub: 'u1', roles: ['reader'], exp: Date.now() / 1000 + 300 };
  return new SignJWT({ ...good, ...claims })
    .setProtectedHeader({ alg: 'ES256', kid: 'k' })
    .sign(pair.privateKey);
}

interface Answer {
  status: number;
  body: { principal?: string; roles?: string[]; reason?: string; message?: string };
  challenge: string | undefined;
}

interface Options {
  policy?: Partial<AccessPolicy>;
  kongConsumers?: boolean;
  publicUrl?: string;
}

/** A gateway of one function behind real HTTP, which hands over every value of a header as Kong does. */
async function startGateway(t: TestContext, { policy = {}, kongConsumers = false, publicUrl }: Options = {}) {
  const jwks = createServer(async (_, response) => {
    response.end(JSON.stringify({ keys: [{ ...(await exportJWK(pair.publicKey)), kid: 'k' }] }));
  });
  await new Promise<void>(resolve => void jwks.listen(0, '127.0.0.1', resolve));
  const issuer = {
    issuer: ISSUER,
    jwksUri: `http://127.0.0.1:${(jwks.address() as AddressInfo).port}/`,
    audience: AUDIENCE,
    algorithms: ['ES256'],
    rolesClaim: 'roles',
  };
  const base: AccessPolicy = {
    version: '0',
    anonymous: null,
    allowedNetworks: [],
    apiKeys: [stored('ci-bot', ciKey), stored('former', oldKey, Date.now() - DAY)],
    issuers: [issuer],
    roles: new Map(['developer', 'reader', 'guest'].map(name => [name, role])),
  };
  const state: { policy: AccessPolicy | undefined; logged: string[] } = {
    policy: { ...base, ...policy },
    logged: [],
  };
  const { authenticate } = createAuthenticator({
    policy: () => state.policy,
    kongConsumers,
    publicUrl,
    log: message => state.logged.push(message),
  });
  const server = createServer(async (incoming, response) => {
    try {
      response.end(JSON.stringify(await authenticate(incoming.headersDistinct, 'github')));
    } catch (fault) {
      const error = toMeshError(fault);
      const value = challenge(error, 'github', {
        publicUrl: 'https://mesh.example.com',
        policy: state.policy,
      });
      response.writeHead(error.status, value === undefined ? {} : { 'www-authenticate': value });
      const reason = error instanceof AuthenticationError ? error.reason : error.code;
      response.end(JSON.stringify({ reason, message: error.message }));
    }
  });
  await new Promise<void>(resolve => void server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const each of [server, jwks]) each.close().closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  /** Headers as a flat list of names and values: some names come twice. */
  const ask = (headers: string[] = [], path = '/api/v1/mcp/github') =>
    new Promise<Answer>((resolve, reject) => {
      const sent = request({
        port,
        host: '127.0.0.1',
        path,
        method: 'POST',
        headers: ['host', 'localhost', ...headers],
      });
      sent.on('error', reject).on('response', async answer => {
        const text = Buffer.concat(await answer.toArray()).toString();
        const { statusCode: status = 0, headers: received } = answer;
        resolve({ status, body: JSON.parse(text), challenge: received['www-authenticate'] });
      });
      sent.end();
    });
  return { ask, state, base, issuer };
}

function assertRefused(answer: Answer, status: number, reason: string): void {
  assert.equal(answer.status, status);
  assert.equal(answer.body.reason, reason);
  assert.match(String(answer.challenge), /^Bearer resource_metadata="[^"]+\/github"/);
}

describe('an API key', () => {
  for (const headers of [
    ['x-api-key', ciKey],
    ['Authorization', `Bearer ${ciKey}`],
    ['authorization', `bearer  ${ciKey}`],
    ['authorization', `Bearer ${ciKey}`, 'x-api-key', ciKey],
  ]) {
    test(`is taken from ${headers.filter((_, i) => i % 2 === 0).join(' and ')}`, async t => {
      const { ask } = await startGateway(t);
      assert.deepEqual(await ask(headers), { status: 200, body: ciPrincipal, challenge: undefined });
    });
  }

  test('has the same principal before and after a rotation', async t => {
    const { ask } = await startGateway(t, {
      policy: { apiKeys: [stored('ci-bot', newKey()), stored('ci-bot', ciKey, Date.now() + DAY)] },
    });
    assert.deepEqual((await ask(['x-api-key', ciKey])).body, ciPrincipal);
  });

  test('that is unknown, malformed, altered or a hash is refused in the same words', async t => {
    const { ask } = await startGateway(t);
    const hash = createHash('sha256').update(ciKey).digest('hex');
    const zero = createHash('sha256').update('').digest('hex');
    const wrong = [newKey(), 'mk_', 'mk_x', ciKey.slice(0, -1), `${ciKey}A`, ciKey.toUpperCase(), hash, zero];
    const answers = await Promise.all([...wrong, '', 'x'.repeat(9000)].map(key => ask(['x-api-key', key])));
    for (const answer of answers) {
      assertRefused(answer, 401, 'bad_key');
      assert.match(String(answer.challenge), /error="invalid_token"/);
      assert.deepEqual(answer, answers[0]);
    }
  });

  test('that has expired says so to its holder', async t => {
    const { ask } = await startGateway(t);
    assertRefused(await ask(['x-api-key', oldKey]), 401, 'expired_key');
    assertRefused(await ask(['x-api-key', `${oldKey}A`]), 401, 'bad_key');
  });

  test('in the query is none', async t => {
    const { ask } = await startGateway(t);
    const query = `?access_token=${ciKey}&api_key=${ciKey}&x-api-key=${ciKey}&authorization=Bearer%20${ciKey}`;
    assertRefused(await ask([], `/api/v1/mcp/github${query}`), 401, 'no_credential');
  });

  test('that is revoked ends with the next policy', async t => {
    const { ask, state, base } = await startGateway(t);
    assert.equal((await ask(['x-api-key', ciKey])).status, 200);
    state.policy = { ...base, apiKeys: [] };
    assertRefused(await ask(['x-api-key', ciKey]), 401, 'bad_key');
  });
});

describe('a token', () => {
  test('is a principal of its issuer', async t => {
    const { ask } = await startGateway(t);
    const answer = await ask(['authorization', `Bearer ${await makeToken()}`]);
    assert.deepEqual(answer.body, { principal: `jwt:${ISSUER}#u1`, roles: ['reader'] });
  });

  test('that was verified under the old policy is judged anew under the next', async t => {
    const { ask, state, base, issuer } = await startGateway(t);
    const headers = ['authorization', `Bearer ${await makeToken()}`];
    assert.equal((await ask(headers)).status, 200);
    state.policy = { ...base, roles: new Map() };
    assert.deepEqual((await ask(headers)).body.roles, []);
    state.policy = { ...base, issuers: [{ ...issuer, audience: 'https://other.example' }] };
    assertRefused(await ask(headers), 401, 'bad_token');
    state.policy = { ...base, issuers: [] };
    const refused = await ask(headers);
    assert.equal(refused.status, 401);
    assert.equal(refused.challenge, 'Bearer realm="mcp-mesh", error="invalid_token"');
  });

  test('is no API key', async t => {
    const { ask } = await startGateway(t);
    assertRefused(await ask(['x-api-key', await makeToken()]), 401, 'bad_key');
  });
});

describe('without a credential', () => {
  test('a caller is refused, and told where to get one', async t => {
    const { ask } = await startGateway(t);
    const answer = await ask();
    assertRefused(answer, 401, 'no_credential');
    assert.doesNotMatch(String(answer.challenge), /error=/);
    // A cookie is none: a browser would send it along for any page.
    assertRefused(
      await ask(['cookie', `token=${ciKey}`, 'proxy-authorization', `Bearer ${ciKey}`]),
      401,
      'no_credential',
    );
  });

  test('a caller has the anonymous role when there is one', async t => {
    const { ask } = await startGateway(t, { policy: { anonymous: 'guest' } });
    assert.deepEqual((await ask()).body, { principal: 'anonymous', roles: ['guest'] });
  });

  test('a wrong credential is never taken for none', async t => {
    const { ask } = await startGateway(t, { policy: { anonymous: 'guest' } });
    const cases: [headers: string[], reason: string][] = [
      [['x-api-key', newKey()], 'bad_key'],
      [['x-api-key', ''], 'bad_key'],
      [['x-api-key', oldKey], 'expired_key'],
      [['authorization', `Bearer ${newKey()}`], 'bad_key'],
      [['authorization', 'Bearer abc'], 'bad_token'],
      [['authorization', `Bearer ${await makeToken({ aud: 'x' })}`], 'bad_token'],
      [['authorization', `Bearer ${await makeToken({ exp: 1 })}`], 'expired_token'],
      [['authorization', ''], 'unsupported'],
      [['authorization', 'Bearer'], 'unsupported'],
      [['authorization', 'Bearer a b'], 'bad_token'],
      [['authorization', `Bearer ${ciKey}, Bearer ${ciKey}`], 'bad_key'],
      [['authorization', `Basic ${Buffer.from(`ci-bot:${ciKey}`).toString('base64')}`], 'unsupported'],
      [['authorization', ciKey], 'unsupported'],
      [['authorization', `Negotiate ${ciKey}`], 'unsupported'],
    ];
    for (const [headers, reason] of cases) assertRefused(await ask(headers), 401, reason);
  });
});

describe('several credentials in one request are refused, whatever each is worth', () => {
  const cases: [desc: string, headers: () => Promise<string[]> | string[]][] = [
    ['two keys', () => ['authorization', `Bearer ${ciKey}`, 'x-api-key', newKey()]],
    ['a wrong key, then a right one', () => ['authorization', `Bearer ${newKey()}`, 'x-api-key', ciKey]],
    ['token and key', async () => ['authorization', `Bearer ${await makeToken()}`, 'x-api-key', ciKey]],
    ['Basic and key', () => ['authorization', 'Basic eDp5', 'x-api-key', ciKey]],
    [
      'Authorization twice',
      () => ['authorization', `Bearer ${ciKey}`, 'authorization', `Bearer ${newKey()}`],
    ],
    ['X-API-Key twice', () => ['x-api-key', ciKey, 'X-Api-Key', newKey()]],
    ['the same key twice in one header', () => ['x-api-key', ciKey, 'x-api-key', ciKey]],
  ];
  for (const [desc, headers] of cases) {
    test(desc, async t => {
      const { ask } = await startGateway(t, { policy: { anonymous: 'guest' } });
      const answer = await ask(await headers());
      assertRefused(answer, 400, 'ambiguous');
      assert.match(String(answer.challenge), /error="invalid_request"/);
    });
  }
});

describe('consumers of Kong', () => {
  const consumer = [
    'x-consumer-id',
    '4f1c',
    'x-consumer-username',
    'alice',
    'x-consumer-groups',
    'reader, root,developer',
  ];
  const alice = { principal: 'consumer:4f1c', roles: ['reader', 'developer'] };

  test('mean nothing unless Kong’s plugins are trusted: a client can write the headers', async t => {
    const { ask } = await startGateway(t);
    assertRefused(await ask(consumer), 401, 'no_credential');
    assert.deepEqual((await ask([...consumer, 'x-api-key', ciKey])).body, ciPrincipal);
  });

  test('are principals with the groups that are roles', async t => {
    const { ask } = await startGateway(t, { kongConsumers: true });
    assert.deepEqual((await ask(consumer)).body, alice);
    assert.deepEqual((await ask(['x-consumer-id', '4f1c'])).body, { ...alice, roles: [] });
  });

  test('may have shown a credential that is Kong’s to judge', async t => {
    const { ask } = await startGateway(t, { kongConsumers: true });
    const foreign = await makeToken({ iss: 'https://kong.example' });
    for (const credential of [
      ['authorization', 'Basic eDp5'],
      ['authorization', `Bearer ${foreign}`],
      ['x-api-key', 'kong-key'],
    ])
      assert.deepEqual((await ask([...consumer, ...credential])).body, alice);
  });

  test('are refused with a credential of ours beside theirs', async t => {
    const apiKeys = [stored('ci-bot', ciKey), stored('imported', 'key-of-another-make')];
    const { ask } = await startGateway(t, { kongConsumers: true, policy: { apiKeys } });
    for (const credential of [
      ['x-api-key', ciKey],
      ['x-api-key', 'key-of-another-make'],
      ['authorization', `Bearer ${newKey()}`],
      ['authorization', `Bearer ${await makeToken()}`],
    ])
      assertRefused(await ask([...consumer, ...credential]), 400, 'ambiguous');
  });

  test('are nobody when Kong let them in as anonymous, twice, or with an id that is none', async t => {
    const { ask } = await startGateway(t, { kongConsumers: true });
    assertRefused(await ask([...consumer, 'x-anonymous-consumer', 'true']), 401, 'no_credential');
    assertRefused(await ask([...consumer, 'x-consumer-id', 'other']), 400, 'ambiguous');
    assertRefused(await ask(['x-consumer-id', 'a b']), 401, 'unsupported');
    assert.deepEqual((await ask(['x-api-key', ciKey])).body, ciPrincipal);
  });
});

test('without a policy nobody gets in, and the answer says what to set', async t => {
  const { ask, state } = await startGateway(t, { kongConsumers: true });
  state.policy = undefined;
  for (const headers of [[], ['x-api-key', ciKey], ['x-consumer-id', '4f1c']]) {
    const answer = await ask(headers);
    assert.equal(answer.status, 401);
    assert.match(String(answer.body.message), /set MESH_ACCESS_POLICY/);
  }
});

test('an audience that no client would ask a token for is told once', async t => {
  const { ask, state } = await startGateway(t, { publicUrl: 'https://gateway.example' });
  await ask();
  await ask();
  assert.equal(state.logged.length, 1);
  assert.match(state.logged[0]!, /clients ask for https:\/\/gateway\.example\/api\/v1\/mcp$/);
  const same = await startGateway(t, { publicUrl: 'https://mesh.example.com/' });
  await same.ask();
  assert.deepEqual(same.state.logged, []);
});

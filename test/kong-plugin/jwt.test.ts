import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { base64url, exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import { createKeySets } from '../../kong-plugin/jwks.ts';
import { createTokenVerifier } from '../../kong-plugin/jwt.ts';
import { AuthenticationError } from '../../kong-plugin/resource-metadata.ts';
import type { AccessPolicy, JwtIssuer } from '../../mesh/access-policy.ts';

const ISSUER = 'https://idp.example.com';
const AUDIENCE = 'https://mesh.example.com/api/v1/mcp';
const ALGORITHMS = ['RS256', 'PS384', 'ES256', 'ES512', 'EdDSA'];
const MINUTE = 60_000;
const NOW = Date.UTC(2026, 10, 22);
const seconds = NOW / 1000;

const role = {
  allow: [],
  deny: [],
  mesh: [],
  rateLimit: undefined,
  quota: undefined,
  inFlight: undefined,
  toolRates: [],
};
const pairs = new Map(
  await Promise.all(
    [...ALGORITHMS, 'RS512'].map(
      async alg => [alg, await generateKeyPair(alg, { extractable: true })] as const,
    ),
  ),
);

interface Key {
  kid: string;
  alg: string;
}

interface TokenOptions {
  claims?: Record<string, unknown>;
  header?: Record<string, unknown>;
  /** The pair that signs, by its algorithm. */
  alg?: string;
}

/** An issuer with a real key server, a verifier that trusts it, and a clock that the test moves. */
async function startIssuer(t: TestContext, change: Partial<JwtIssuer> = {}) {
  const published: object[] = [];
  const seen: string[] = [];
  const state = {
    answer: ((_request, response) => {
      response.setHeader('content-type', 'application/jwk-set+json').end(JSON.stringify({ keys: published }));
    }) as RequestListener,
  };
  const server = createServer((request, response) => {
    seen.push(String(request.url));
    state.answer(request, response);
  });
  const listen = (port: number) =>
    new Promise<void>(resolve => void server.listen(port, '127.0.0.1', resolve));
  const stop = () => {
    server.closeAllConnections();
    return new Promise<void>(resolve => void server.close(() => resolve()));
  };
  await listen(0);
  t.after(stop);
  const { port } = server.address() as AddressInfo;
  const clock = { ms: NOW };
  const now = () => clock.ms;
  const logged: string[] = [];
  const keySets = createKeySets({ now, log: message => logged.push(message) });
  const issuer: JwtIssuer = {
    issuer: ISSUER,
    jwksUri: `http://127.0.0.1:${port}/keys`,
    audience: AUDIENCE,
    algorithms: ALGORITHMS,
    rolesClaim: 'roles',
    ...change,
  };
  const policy: AccessPolicy = {
    version: '0',
    anonymous: null,
    allowedNetworks: [],
    apiKeys: [],
    issuers: [issuer],
    roles: new Map(['developer', 'reader', 'admin'].map(name => [name, role])),
  };
  const verifier = createTokenVerifier(policy, { keySets, now });
  return {
    published,
    seen,
    state,
    clock,
    logged,
    keySets,
    issuer,
    policy,
    stop,
    restart: () => listen(port),
    async publish({ kid, alg }: Key) {
      const { publicKey } = pairs.get(alg)!;
      published.push({ ...(await exportJWK(publicKey)), kid, alg, use: 'sig' });
    },
    /** For what belongs to no service. */
    verifyForMesh: async (token: string) => verifier.verify(token, undefined),
    verify: async (token: string, service = 'github') => verifier.verify(token, service),
  };
}

/** A token that is good unless the options say otherwise: they are laid over it. */
function makeToken({ claims = {}, header = {}, alg = 'ES256' }: TokenOptions = {}): Promise<string> {
  const good = { iss: ISSUER, aud: AUDIENCE, sub: 'u1', exp: seconds + 300, roles: ['developer'] };
  const full = { alg, kid: alg, typ: 'JWT', ...header };
  return new SignJWT({ ...good, ...claims }).setProtectedHeader(full).sign(pairs.get(alg)!.privateKey, {
    crit: { 'https://example.com/strange': true },
  });
}

/** A compact JWS of any header, payload and signature. */
function forge(header: object, payload: object, signature = ''): string {
  const part = (value: object) => base64url.encode(JSON.stringify(value));
  return `${part(header)}.${part(payload)}.${signature}`;
}

async function hmacToken(header: Record<string, unknown>, secret: Uint8Array): Promise<string> {
  const payload = { iss: ISSUER, aud: AUDIENCE, sub: 'u1', exp: seconds + 300 };
  return new SignJWT(payload).setProtectedHeader({ alg: 'HS256', ...header }).sign(secret);
}

function refused(reason: AuthenticationError['reason'], detail: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof AuthenticationError);
    assert.equal(error.status, 401);
    assert.equal(error.reason, reason);
    assert.match(error.message, detail);
    return true;
  };
}

describe('a token of the issuer is accepted', () => {
  for (const alg of ALGORITHMS) {
    test(`signed by ${alg}`, async t => {
      const idp = await startIssuer(t);
      await idp.publish({ kid: alg, alg });
      const found = await idp.verify(await makeToken({ alg }));
      assert.deepEqual(found, { principal: `jwt:${ISSUER}#u1`, roles: ['developer'] });
    });
  }

  const cases: [desc: string, options: TokenOptions][] = [
    ['expired less than a minute ago', { claims: { exp: seconds - 59 } }],
    ['valid in less than a minute', { claims: { nbf: seconds + 59 } }],
    ['for this service only', { claims: { aud: `${AUDIENCE}/github` } }],
    ['for several resources', { claims: { aud: ['https://other.example', `${AUDIENCE}/github`] } }],
    ['of type at+jwt (RFC 9068)', { header: { typ: 'at+jwt' } }],
    ['without a key id when the issuer has one key', { header: { kid: undefined } }],
  ];
  for (const [desc, options] of cases) {
    test(desc, async t => {
      const idp = await startIssuer(t);
      await idp.publish({ kid: 'ES256', alg: 'ES256' });
      assert.equal((await idp.verify(await makeToken(options))).principal, `jwt:${ISSUER}#u1`);
    });
  }
});

describe('a token is refused', () => {
  const good = { iss: ISSUER, aud: AUDIENCE, sub: 'u1', exp: seconds + 300 };
  const cases: [desc: string, token: () => Promise<string> | string, detail: RegExp][] = [
    ['without a signature (alg none)', () => new UnsecuredJWT(good).encode(), /algorithm/],
    [
      'alg none with a signature',
      async () => forge({ alg: 'none' }, good, (await makeToken()).split('.')[2]),
      /algorithm/,
    ],
    ['alg "nOnE"', () => forge({ alg: 'nOnE', kid: 'ES256' }, good), /algorithm/],
    [
      'signed by HMAC with the public key',
      async () => {
        const spki = await crypto.subtle.exportKey('spki', pairs.get('RS256')!.publicKey);
        return hmacToken({ kid: 'RS256' }, new Uint8Array(spki));
      },
      /algorithm/,
    ],
    [
      'signed by HMAC with the published JWK text',
      async () => {
        const jwk = JSON.stringify(await exportJWK(pairs.get('ES256')!.publicKey));
        return hmacToken({ kid: 'ES256' }, new TextEncoder().encode(jwk));
      },
      /algorithm/,
    ],
    ['by an algorithm that the issuer does not use', () => makeToken({ alg: 'RS512' }), /algorithm/],
    [
      'that says ES256 of an RSA signature',
      async () => {
        const [, payload, signature] = (await makeToken({ alg: 'RS256' })).split('.');
        return `${base64url.encode(JSON.stringify({ alg: 'ES256', kid: 'ES256' }))}.${payload}.${signature}`;
      },
      /signature/,
    ],
    ['of another issuer', () => makeToken({ claims: { iss: 'https://evil.example' } }), /issuer/],
    ['of an issuer by a prefix', () => makeToken({ claims: { iss: `${ISSUER}.evil.example` } }), /issuer/],
    ['of an issuer in a list', () => makeToken({ claims: { iss: [ISSUER] } }), /issuer/],
    ['for another audience', () => makeToken({ claims: { aud: 'https://other.example' } }), /not for/],
    ['for another service', () => makeToken({ claims: { aud: `${AUDIENCE}/files` } }), /not for .*\/github$/],
    ['for a prefix of the service', () => makeToken({ claims: { aud: `${AUDIENCE}/git` } }), /not for/],
    [
      'for an audience that contains ours',
      () => makeToken({ claims: { aud: `${AUDIENCE}/github/x` } }),
      /not for/,
    ],
    ['without an audience', () => makeToken({ claims: { aud: undefined } }), /aud/],
    ['expired', () => makeToken({ claims: { exp: seconds - 60 } }), /expired/],
    ['without expiry', () => makeToken({ claims: { exp: undefined } }), /exp/],
    ['with an expiry that is no number', () => makeToken({ claims: { exp: '9999999999' } }), /exp/],
    ['not valid yet', () => makeToken({ claims: { nbf: seconds + 61 } }), /not valid yet/],
    ['without a subject', () => makeToken({ claims: { sub: undefined } }), /sub/],
    ['with an empty subject', () => makeToken({ claims: { sub: '' } }), /subject/],
    ['with a line break in the subject', () => makeToken({ claims: { sub: 'u1\nadmin' } }), /subject/],
    ['with a subject that is no text', () => makeToken({ claims: { sub: 7 } }), /subject/],
    [
      'with an extension nobody knows (crit)',
      () =>
        makeToken({ header: { crit: ['https://example.com/strange'], 'https://example.com/strange': 1 } }),
      /crit/,
    ],
    ['of another type', () => makeToken({ header: { typ: 'logout+jwt' } }), /typ/],
    ['bound to a key', () => makeToken({ claims: { cnf: { jkt: 'x' } } }), /cnf/],
    [
      'with a key of its own',
      async () => {
        const { privateKey, publicKey } = await generateKeyPair('ES256');
        const header = { alg: 'ES256', kid: 'own', jwk: await exportJWK(publicKey) };
        return new SignJWT(good).setProtectedHeader(header).sign(privateKey);
      },
      /no such key/,
    ],
    ['with a path as key id', () => makeToken({ header: { kid: '../../../../dev/null' } }), /no such key/],
    ['with a number as key id', () => makeToken({ header: { kid: 7 } }), /token is refused/],
    [
      'with other claims than were signed',
      async () => {
        const [header, , signature] = (await makeToken()).split('.');
        return `${header}.${base64url.encode(JSON.stringify({ ...good, sub: 'root' }))}.${signature}`;
      },
      /signature/,
    ],
    ['with its signature cut off', async () => (await makeToken()).replace(/[^.]+$/, ''), /signature/],
    ['encrypted', () => 'eyJhbGciOiJkaXIifQ..x.y.z', /no signed token/],
    ['of two parts', () => 'eyJhbGciOiJkaXIifQ.e30', /no signed token/],
    ['of no parts', () => 'abc', /no signed token/],
    [
      'with a space in its signature',
      async () => (await makeToken()).replace(/\.(?=[^.]+$)/, '. '),
      /no signed token/,
    ],
    ['with padding', async () => `${await makeToken()}=`, /no signed token/],
    ['claims that are no object', () => forge({ alg: 'ES256' }, []), /issuer/],
  ];
  for (const [desc, token, detail] of cases) {
    test(desc, async t => {
      const idp = await startIssuer(t);
      for (const alg of ['ES256', 'RS256', 'RS512']) await idp.publish({ kid: alg, alg });
      const reason = desc === 'expired' ? 'expired_token' : 'bad_token';
      await assert.rejects(idp.verify(await token()), refused(reason, detail));
      // The server is fine: the same verifier takes a good token.
      await idp.verify(await makeToken());
    });
  }

  test('HMAC, even when policy and key server offer it', async t => {
    const idp = await startIssuer(t, { algorithms: ['HS256', 'none', 'ES256'] });
    const secret = new Uint8Array(32).fill(7);
    idp.published.push({ kty: 'oct', k: base64url.encode(secret), kid: 'shared', alg: 'HS256' });
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    await assert.rejects(
      idp.verify(await hmacToken({ kid: 'shared' }, secret)),
      refused('bad_token', /algorithm/),
    );
    await assert.rejects(idp.verify(new UnsecuredJWT(good).encode()), refused('bad_token', /algorithm/));
    await idp.verify(await makeToken());
  });

  test('longer than 8 KB, unread: the issuer is not even asked', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    const token = await makeToken({ claims: { pad: 'x'.repeat(8000) } });
    await assert.rejects(idp.verify(token), refused('bad_token', /longer than 8192/));
    assert.deepEqual(idp.seen, []);
  });

  test('whose header points elsewhere for its key: nobody goes there', async t => {
    const idp = await startIssuer(t);
    const trap = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    await trap.publish({ kid: trap.issuer.jwksUri, alg: 'RS256' });
    const header = { kid: trap.issuer.jwksUri, jku: trap.issuer.jwksUri, x5u: trap.issuer.jwksUri };
    const token = await makeToken({ alg: 'RS256', header });
    await assert.rejects(idp.verify(token), refused('bad_token', /no such key/));
    assert.deepEqual(trap.seen, []);
    assert.ok(idp.seen.every(path => path === '/keys'));
  });

  test('without a key id when the issuer has several keys', async t => {
    const idp = await startIssuer(t);
    const other = await generateKeyPair('ES256');
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    idp.published.push({ ...(await exportJWK(other.publicKey)), kid: 'other', alg: 'ES256' });
    await assert.rejects(
      idp.verify(await makeToken({ header: { kid: undefined } })),
      refused('bad_token', /kid/),
    );
  });
});

describe('roles are read from the claim that the policy names', () => {
  const cases: [desc: string, rolesClaim: string, claims: Record<string, unknown>, roles: string[]][] = [
    ['list', 'roles', { roles: ['reader', 'developer'] }, ['reader', 'developer']],
    ['one word', 'roles', { roles: 'reader' }, ['reader']],
    ['words', 'scope', { scope: 'openid reader  developer' }, ['reader', 'developer']],
    ['path', 'realm_access.roles', { realm_access: { roles: ['reader'] } }, ['reader']],
    ['name with dots', 'https://example.com/roles', { 'https://example.com/roles': ['reader'] }, ['reader']],
    ['roles that the policy does not have', 'roles', { roles: ['reader', 'root', 'READER'] }, ['reader']],
    ['twice the same', 'roles', { roles: ['reader', 'reader'] }, ['reader']],
    ['no claim', 'groups', {}, []],
    [
      'other things in the list',
      'roles',
      { roles: ['reader', 1, null, ['admin'], { admin: true }] },
      ['reader'],
    ],
    ['object instead of a list', 'roles', { roles: { 0: 'admin' } }, []],
    ['path through a text', 'realm_access.roles.length', { realm_access: { roles: 'admin' } }, []],
    ['inherited property', 'constructor.name', {}, []],
    ['scope is not a role unless named', 'roles', { roles: undefined, scope: 'admin' }, []],
  ];
  for (const [desc, rolesClaim, claims, roles] of cases) {
    test(desc, async t => {
      const idp = await startIssuer(t, { rolesClaim });
      await idp.publish({ kid: 'ES256', alg: 'ES256' });
      assert.deepEqual((await idp.verify(await makeToken({ claims }))).roles, roles);
    });
  }
});

describe('a token that was verified before', () => {
  test('is the same principal, and only for its own service', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    const token = await makeToken({ claims: { aud: `${AUDIENCE}/github` } });
    const first = await idp.verify(token, 'github');
    assert.equal(await idp.verify(token, 'github'), first);
    await assert.rejects(idp.verify(token, 'files'), refused('bad_token', /not for .*\/files/));
    // Lists of services and the mesh's own interface are no service: a token for one of them is not for these.
    await assert.rejects(idp.verifyForMesh(token), refused('bad_token', /not for/));
    assert.equal((await idp.verifyForMesh(await makeToken())).principal, first.principal);
  });

  test('ends when it expires', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    const token = await makeToken({ claims: { exp: seconds + 30 } });
    await idp.verify(token);
    idp.clock.ms += 89_999;
    await idp.verify(token);
    idp.clock.ms += 1;
    await assert.rejects(idp.verify(token), refused('expired_token', /expired/));
  });

  test('ends when its key was withdrawn, as soon as that is known', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    await idp.publish({ kid: 'RS256', alg: 'RS256' });
    const token = await makeToken({ claims: { exp: seconds + 86_400 } });
    await idp.verify(token);
    idp.published.shift();
    idp.clock.ms += 10 * MINUTE;
    await assert.rejects(idp.verify(token), refused('bad_token', /no such key/));
    await idp.verify(await makeToken({ alg: 'RS256', claims: { exp: seconds + 86_400 } }));
  });
});

describe('the keys of an issuer', () => {
  test('are asked for once by many calls', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    const tokens = await Promise.all(
      Array.from({ length: 50 }, (_, i) => makeToken({ claims: { sub: `u${i}` } })),
    );
    await Promise.all(tokens.map(token => idp.verify(token)));
    assert.equal(idp.seen.length, 1);
  });

  test('follow a rotation at once, and unknown key ids cost one question in ten seconds', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    await idp.verify(await makeToken());
    idp.clock.ms += 11_000;
    await idp.publish({ kid: 'RS256', alg: 'RS256' });
    await idp.verify(await makeToken({ alg: 'RS256' }));
    assert.equal(idp.seen.length, 2);
    const unknown = async (i: number) =>
      assert.rejects(
        idp.verify(await makeToken({ header: { kid: `guess-${i}` } })),
        refused('bad_token', /no such key/),
      );
    for (let i = 0; i < 20; i += 1) await unknown(i);
    assert.equal(idp.seen.length, 2);
    idp.clock.ms += 10_001;
    for (let i = 20; i < 40; i += 1) await unknown(i);
    assert.equal(idp.seen.length, 3);
  });

  test('follow a rotation of an issuer that names no keys', async t => {
    const idp = await startIssuer(t);
    idp.published.push({ ...(await exportJWK((await generateKeyPair('ES256')).publicKey)) });
    await assert.rejects(
      idp.verify(await makeToken({ header: { kid: undefined } })),
      refused('bad_token', /signature/),
    );
    idp.clock.ms += 11_000;
    idp.published.shift();
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    await idp.verify(await makeToken({ header: { kid: undefined } }));
  });

  test('stay in use for a day while the issuer is away, which is said once', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    const token = (hours: number) => makeToken({ claims: { exp: seconds + hours * 3600 + 300 } });
    await idp.verify(await token(0));
    await idp.stop();
    for (const hours of [1, 2, 12, 23]) {
      idp.clock.ms = NOW + hours * 60 * MINUTE;
      await idp.verify(await token(hours));
      // The background question has its answer before the clock moves on.
      while (idp.keySets.failures < [1, 2, 12, 23].indexOf(hours) + 1) await sleep(5);
    }
    assert.equal(idp.logged.length, 1);
    assert.match(
      idp.logged[0]!,
      /keys of https:\/\/idp\.example\.com cannot be read, the last ones stay in use: .*ECONNREFUSED/,
    );
    idp.clock.ms = NOW + 24 * 60 * MINUTE;
    await assert.rejects(idp.verify(await token(24)), (error: AuthenticationError) => {
      assert.equal(error.retryAfterMs, 10_000);
      return refused('no_issuer_keys', /cannot be fetched/)(error);
    });
    await idp.restart();
    idp.clock.ms += 10_001;
    await idp.verify(await token(24));
    assert.equal(idp.logged.length, 2);
    assert.match(idp.logged[1]!, /read again/);
  });

  test('are missing when the issuer was never there; it is asked again after a while', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    const token = await makeToken();
    await idp.stop();
    await assert.rejects(idp.verify(token), refused('no_issuer_keys', /cannot be fetched/));
    await idp.restart();
    await assert.rejects(idp.verify(token), refused('no_issuer_keys', /cannot be fetched/));
    idp.clock.ms += 10_000;
    await idp.verify(token);
  });

  const unusable: [desc: string, answer: RequestListener, log: RegExp][] = [
    ['an error page', (_, response) => response.writeHead(500).end('{"keys":[]}'), /status 500/],
    ['no JSON', (_, response) => response.end('<h\r\n\x1b[1mtml>'), /^[^\p{Cc}]*JSON/u],
    ['no key set', (_, response) => response.end('{"keys":{}}'), /malformed/],
    [
      'a broken connection',
      (_, response) => {
        response.writeHead(200, { 'content-length': '100' });
        response.write('{"keys":');
        response.destroy();
      },
      /fetch failed|terminated/,
    ],
  ];
  for (const [desc, answer, log] of unusable) {
    test(`are the last good ones when the answer is ${desc}`, async t => {
      const idp = await startIssuer(t);
      await idp.publish({ kid: 'ES256', alg: 'ES256' });
      await idp.verify(await makeToken());
      idp.state.answer = answer;
      idp.clock.ms += 10 * MINUTE;
      await idp.verify(await makeToken({ claims: { exp: seconds + 3600 } }));
      assert.match(idp.logged.join(), log);
      assert.equal(idp.keySets.failures, 1);
    });
  }

  test('are not read from an answer of 10 MB, nor is it read to its end', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    let cut = false;
    idp.state.answer = (_, response) => {
      response.on('close', () => {
        cut = !response.writableFinished;
      });
      const keys = JSON.stringify(idp.published);
      response.end(`{"keys":${keys},"pad":"${'x'.repeat(10_000_000)}"}`);
    };
    await assert.rejects(idp.verify(await makeToken()), refused('no_issuer_keys', /cannot be fetched/));
    assert.match(idp.logged.join(), /longer than 262144 bytes/);
    while (!cut) await sleep(5);
  });

  test('are not fetched from where the issuer redirects to', async t => {
    const idp = await startIssuer(t);
    const other = await startIssuer(t);
    await other.publish({ kid: 'ES256', alg: 'ES256' });
    idp.state.answer = (_, response) => response.writeHead(302, { location: other.issuer.jwksUri }).end();
    await assert.rejects(idp.verify(await makeToken()), refused('no_issuer_keys', /cannot be fetched/));
    assert.match(idp.logged.join(), /status 302/);
    assert.deepEqual(other.seen, []);
  });

  for (const jwksUri of [
    'http://idp.example.com/keys',
    'http://127.0.0.1.example.com/',
    'file:///etc/passwd',
    'nonsense',
  ]) {
    test(`are not fetched from ${jwksUri}`, async t => {
      const idp = await startIssuer(t, { jwksUri });
      await assert.rejects(idp.verify(await makeToken()), refused('no_issuer_keys', /cannot be fetched/));
      assert.match(idp.logged.join(), /must be https|Invalid URL/);
    });
  }

  test('are given up after a time limit by the first call, and not waited for by the next', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    await idp.verify(await makeToken());
    idp.state.answer = () => {};
    idp.clock.ms += 10 * MINUTE;
    await idp.verify(await makeToken({ claims: { exp: seconds + 3600 } }));
    assert.match(idp.logged.join(), /timeout/);
    idp.clock.ms += 10 * MINUTE;
    // Answers while the question hangs: the server has it and never replies.
    await idp.verify(await makeToken({ claims: { exp: seconds + 3600 } }));
    assert.equal(idp.keySets.failures, 1);
  });

  test('survive a change of the policy, but not the removal of the issuer', async t => {
    const idp = await startIssuer(t);
    await idp.publish({ kid: 'ES256', alg: 'ES256' });
    await idp.verify(await makeToken());
    await idp.stop();
    idp.keySets.retain([{ ...idp.issuer, audience: 'changed' }]);
    const options = { keySets: idp.keySets, now: () => idp.clock.ms };
    await createTokenVerifier({ ...idp.policy }, options).verify(await makeToken(), 'github');
    idp.keySets.retain([]);
    const again = createTokenVerifier({ ...idp.policy }, options);
    await assert.rejects(
      async () => again.verify(await makeToken(), 'github'),
      refused('no_issuer_keys', /cannot be fetched/),
    );
  });
});

import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, randomBytes, sign as signBytes } from 'node:crypto';
import { test } from 'node:test';
import { calculateJwkThumbprint, compactVerify, exportJWK, importJWK, jwtVerify, SignJWT } from 'jose';
import { MeshError } from '../../mesh/errors.ts';
import {
  createSigner,
  createVerifier,
  IDENTITY_MAX,
  type Identity,
  parsePrivateKey,
  parsePublicKey,
  publicKeyOf,
} from '../../mesh/identity.ts';

const START = 1_800_000_000_000;
const TYP = 'mesh-identity+jwt';
type Claims = Omit<Identity, 'iat' | 'exp'>;

const claims: Claims = {
  sub: 'jwt:https://idp.example.com#ada',
  roles: ['developer', 'on-call'],
  svc: 'github',
  grants: {
    allow: [{ tools: ['get_*', 'list_*'] }, { prompts: ['*'], resources: ['file:///*'] }],
    deny: [{}],
  },
  limits: {
    rate: { requests: 600, windowS: 60 },
    inFlight: 20,
    quota: { calls: 10_000, period: 'day' },
    toolRates: [{ pattern: 'search_*', calls: 5, windowS: 1 }],
  },
  policy_version: 'a1b2c3d4e5f6',
};

/** A gateway's signer and a worker's verifier, with a clock of their own. */
function makePair(service = 'github') {
  const privateKey = newKey();
  const publicKey = parsePublicKey(publicKeyOf(privateKey));
  const clock = { ms: START };
  const now = () => clock.ms;
  return {
    privateKey,
    publicKey,
    clock,
    sign: createSigner({ privateKey, now }),
    verify: createVerifier({ publicKeys: [publicKey], service, now }),
  };
}

const newKey = () => parsePrivateKey(randomBytes(32).toString('base64url'));
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const decode = (part = '') => JSON.parse(Buffer.from(part, 'base64url').toString());

/** A token with a good signature over whatever it is to say. */
function forge(privateKey: KeyObject, header: unknown, payload: unknown): string {
  const signed = `${encode(header)}.${typeof payload === 'string' ? payload : encode(payload)}`;
  return `${signed}.${signBytes(null, Buffer.from(signed), privateKey).toString('base64url')}`;
}

function assertRefused(run: () => unknown, wanted: RegExp): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof MeshError, String(error));
    assert.equal(error.code, 'unauthenticated');
    assert.match(error.message, wanted);
    return true;
  });
}

test('a worker reads what the gateway signed', () => {
  const { sign, verify } = makePair();
  const seconds = START / 1000;
  assert.deepEqual(verify(sign(claims)), { ...claims, iat: seconds, exp: seconds + 60 });
  const least: Claims = {
    ...claims,
    sub: 'anonymous',
    roles: [],
    grants: { allow: [], deny: [] },
    limits: {},
  };
  assert.deepEqual(verify(sign(least)), { ...least, iat: seconds, exp: seconds + 60 });
});

test('jose verifies our tokens, and we verify those of jose', async () => {
  const { privateKey, publicKey, sign, verify, clock } = makePair();
  const { payload, protectedHeader } = await jwtVerify(sign(claims), publicKey, {
    algorithms: ['EdDSA'],
    typ: TYP,
    currentDate: new Date(START),
    requiredClaims: ['sub', 'exp', 'iat', 'svc'],
  });
  assert.deepEqual(payload, verify(sign(claims)));
  assert.equal(protectedHeader.kid, await calculateJwkThumbprint(await exportJWK(publicKey)));
  await compactVerify(
    sign(claims),
    await importJWK({ kty: 'OKP', crv: 'Ed25519', x: publicKeyOf(privateKey) }, 'EdDSA'),
  );

  const header = { alg: 'EdDSA', typ: TYP, kid: protectedHeader.kid as string };
  const theirs = await new SignJWT({ ...claims })
    .setProtectedHeader(header)
    .setIssuedAt(clock.ms / 1000)
    .setExpirationTime(clock.ms / 1000 + 60)
    .sign(privateKey);
  assert.equal(verify(theirs).sub, claims.sub);
});

test('a token is made once for equal claims and 30 s, and never handed out for others', () => {
  const { sign, clock } = makePair();
  const token = sign(claims);
  // A second later a new one would be another.
  clock.ms += 1000;
  assert.equal(sign({ ...claims }), token);
  assert.equal(sign(structuredClone(claims)), token);
  const others: Partial<Claims>[] = [
    { sub: 'anonymous' },
    { svc: 'files' },
    { policy_version: 'ffffffffffff' },
    { roles: ['developer'] },
    { roles: ['developer,on-call'] },
    { grants: { allow: [{}], deny: [] } },
    { limits: {} },
  ];
  for (const other of others) {
    const wanted = { ...claims, ...other };
    const made = sign(wanted);
    assert.deepEqual(decode(made.split('.')[1]), {
      ...wanted,
      iat: clock.ms / 1000,
      exp: clock.ms / 1000 + 60,
    });
  }
  const fresh = sign(claims);
  clock.ms += 29_999;
  assert.equal(sign(claims), fresh);
  clock.ms += 1;
  assert.notEqual(sign(claims), fresh);
});

test('one caller’s name cannot be written so that it reads as another’s', () => {
  const { sign, verify } = makePair();
  const names = ['a', 'a"', 'a","github', 'a\0github', 'a\u2028', 'ä', 'a\\', '"'];
  for (const sub of names) sign({ ...claims, sub });
  for (const sub of names) assert.equal(verify(sign({ ...claims, sub })).sub, sub);
});

test('a clock that is set back leaves no token of the future in use', () => {
  const { sign, verify, clock } = makePair();
  sign(claims);
  clock.ms -= 3_600_000;
  assert.equal(verify(sign(claims)).iat, clock.ms / 1000);
});

test('a token is good until it expires, also one that is known already', () => {
  const { sign, verify, clock } = makePair();
  const token = sign(claims);
  const identity = verify(token);
  clock.ms += 59_999;
  assert.equal(verify(token), identity);
  clock.ms += 1;
  assertRefused(() => verify(token), /has expired: compare the clocks/);
  assertRefused(() => verify(token), /has expired/);
});

test('clocks may differ a little, and a life is never longer than 60 s', () => {
  const { privateKey, sign, verify, clock } = makePair();
  const header = decode(sign(claims).split('.')[0]);
  const seconds = START / 1000;
  const at = (iat: number, exp: number) => () => verify(forge(privateKey, header, { ...claims, iat, exp }));
  assert.ok(at(seconds + 5, seconds + 65)());
  assertRefused(at(seconds + 6, seconds + 66), /is from the future: compare the clocks/);
  assertRefused(at(seconds, seconds + 61), /lives longer than 60 s/);
  assertRefused(at(seconds - 3600, seconds + 60), /lives longer/);
  assertRefused(at(seconds, 9e15), /lives longer/);
  clock.ms += 500;
  assertRefused(at(seconds - 60, seconds), /has expired/);
});

test('a token for another service is refused, and so is none at all', () => {
  const { sign, verify } = makePair('github');
  assertRefused(() => verify(sign({ ...claims, svc: 'files' })), /is for another service/);
  assertRefused(() => verify(undefined), /x-mesh-identity is missing: call through the gateway/);
  assertRefused(() => verify(''), /is missing/);
  assertRefused(() => verify([sign(claims), sign(claims)]), /more than once/);
});

test('what another key signed is refused, whatever its header says', () => {
  const { sign, verify, publicKey } = makePair();
  const [header, payload] = sign(claims).split('.');
  const stranger = newKey();
  assertRefused(
    () => verify(createSigner({ privateKey: stranger, now: () => START })(claims)),
    /not of a key of this mesh/,
  );
  assertRefused(() => verify(forge(stranger, decode(header), decode(payload))), /wrong signature/);
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const bytes = signBytes('sha256', Buffer.from(`${header}.${payload}`), rsa).toString('base64url');
  assertRefused(() => verify(`${header}.${payload}.${bytes}`), /wrong signature/);
  assert.ok(publicKey.asymmetricKeyType === 'ed25519');
});

test('another algorithm, type or key name is refused even when the signature is good', () => {
  const { privateKey, sign, verify } = makePair();
  const [header, payload] = sign(claims).split('.');
  const good = decode(header);
  const bad = [
    { ...good, alg: 'none' },
    { ...good, alg: 'HS256' },
    { ...good, alg: 'ES256' },
    { ...good, alg: 'eddsa' },
    { ...good, typ: 'JWT' },
    { ...good, kid: 'x' },
    { alg: good.alg, typ: good.typ },
    { ...good, crit: ['b64'], b64: false },
    { ...good, jwk: { kty: 'OKP', crv: 'Ed25519', x: publicKeyOf(privateKey) } },
  ];
  for (const header of bad) {
    assertRefused(() => verify(forge(privateKey, header, payload)), /not of a key of this mesh/);
  }
  assertRefused(() => verify(`${encode({ ...good, alg: 'none' })}.${payload}.`), /no compact JWS/);
  assert.ok(verify(forge(privateKey, good, payload)));
});

test('what is no compact JWS is refused before any cryptography', () => {
  const { sign, verify } = makePair();
  const token = sign(claims);
  const [header, payload, signature] = token.split('.');
  const shapes = [
    '.',
    '..',
    '...',
    'x',
    `${header}.${payload}`,
    `${token}.`,
    `${token}.x`,
    `${header}..${signature}`,
  ];
  for (const shape of shapes) assertRefused(() => verify(shape), /no compact JWS/);
  assertRefused(() => verify('x'.repeat(IDENTITY_MAX + 1)), /more than 8192 characters/);
  assertRefused(() => verify(`${token}, ${token}`), /no compact JWS/);
});

test('no character of a token can be changed, added or left out', () => {
  const { sign, verify } = makePair();
  const token = sign(claims);
  for (let at = 0; at < token.length; at += 1) {
    const other = token[at] === 'A' ? 'B' : 'A';
    // A step of one in the last character changes only bits that encode nothing.
    const near = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const next = near[(near.indexOf(token[at] ?? 'A') + 1) % 64];
    for (const put of [other, next, '', `${token[at]}=`, `${token[at]} `, `!${token[at]}`]) {
      const text = token.slice(0, at) + put + token.slice(at + 1);
      assertRefused(() => verify(text), /./);
    }
  }
  assert.ok(verify(token));
});

test('claims of a wrong shape are refused, also when the gateway’s key signed them', () => {
  const { privateKey, sign, verify } = makePair();
  const [header, payload] = sign(claims).split('.');
  const good = decode(payload);
  const bad: [unknown, RegExp][] = [
    [null, /another version/],
    [[], /another version/],
    ['text', /not JSON/],
    [{ ...good, sub: undefined }, /sub/],
    [{ ...good, sub: '' }, /sub/],
    [{ ...good, sub: 7 }, /sub/],
    [{ ...good, roles: 'admin' }, /roles/],
    [{ ...good, svc: ['github'] }, /svc/],
    [{ ...good, grants: undefined }, /grants/],
    [{ ...good, grants: { allow: [{}] } }, /grants\.deny/],
    [{ ...good, grants: { allow: [{ tools: 'get_*' }], deny: [] } }, /grants\.allow\.0\.tools/],
    // Dropped, it would leave a rule that covers everything.
    [{ ...good, grants: { allow: [{ templates: ['x'] }], deny: [] } }, /grants\.allow\.0/],
    [{ ...good, limits: { inFlight: -1 } }, /limits\.inFlight/],
    [{ ...good, limits: { quota: { calls: 1, period: 'year' } } }, /limits\.quota\.period/],
    [{ ...good, limits: { newer: 1 } }, /limits/],
    [{ ...good, iat: '0' }, /iat/],
    [{ ...good, exp: good.exp + 0.5 }, /exp/],
    [{ ...good, exp: undefined }, /exp/],
  ];
  for (const [claim, wanted] of bad) {
    const text = claim === 'text' ? Buffer.from('{"sub"').toString('base64url') : claim;
    assertRefused(() => verify(forge(privateKey, decode(header), text)), wanted);
  }
  assert.ok(
    verify(forge(privateKey, decode(header), { ...good, later: 'unknown claims are of newer gateways' })),
  );
});

test('keys are rotated without a refused call: workers first learn the new one', () => {
  const [oldKey, newKeyPair] = [newKey(), newKey()];
  const publicKeys = [newKeyPair, oldKey].map(key => parsePublicKey(publicKeyOf(key)));
  const now = () => START;
  const verify = createVerifier({ publicKeys, service: 'github', now });
  for (const privateKey of [oldKey, newKeyPair]) assert.ok(verify(createSigner({ privateKey, now })(claims)));
  const after = createVerifier({ publicKeys: publicKeys.slice(0, 1), service: 'github', now });
  assertRefused(() => after(createSigner({ privateKey: oldKey, now })(claims)), /MESH_IDENTITY_PUBLIC_KEYS/);
});

test('an identity cannot be changed by one of the requests that share it', () => {
  const { sign, verify } = makePair();
  const identity = verify(sign(claims));
  assert.throws(() => identity.grants.allow.push({}), TypeError);
  assert.throws(() => identity.grants.allow[0]?.tools?.push('*'), TypeError);
  assert.throws(() => Object.assign(identity, { sub: 'key:root' }), TypeError);
  assert.equal(verify(sign(claims)), identity);
});

test('an identity that no worker would take is not signed', () => {
  const { sign, verify } = makePair();
  const rule = (length: number) => ({ allow: [{ tools: ['x'.repeat(length)] }], deny: [] });
  assert.ok(verify(sign({ ...claims, grants: rule(5000) })));
  assert.throws(
    () => sign({ ...claims, grants: rule(8000) }),
    /github has \d+ characters, more than 8192; .*access\.yaml/,
  );
});

test('keys that are none are refused with their setting and the cure', () => {
  const seed = randomBytes(32);
  assert.equal(publicKeyOf(parsePrivateKey(seed.toString('base64url'))).length, 43);
  assert.equal(publicKeyOf(parsePrivateKey(`${seed.toString('base64url')}=`)).length, 43);
  const bad = [
    '',
    'x',
    randomBytes(31).toString('base64url'),
    randomBytes(33).toString('base64url'),
    '+'.repeat(43),
  ];
  for (const text of bad) {
    assert.throws(
      () => parsePrivateKey(text),
      /MESH_IDENTITY_PRIVATE_KEY: a key must be 32 bytes .* mesh keys init/,
    );
    assert.throws(() => parsePublicKey(text), /MESH_IDENTITY_PUBLIC_KEYS: a key must be 32 bytes/);
  }
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  assert.throws(() => createSigner({ privateKey }), /must be an Ed25519 key/);
  assert.throws(() => createVerifier({ publicKeys: [], service: 'a' }), /set MESH_IDENTITY_PUBLIC_KEYS/);
  // RFC 8037, appendix A.1 and A.2.
  assert.equal(
    publicKeyOf(parsePrivateKey('nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A')),
    '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo',
  );
});

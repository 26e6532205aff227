import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { gatewaySettings, registryEnvironment, startSettings, workerSettings } from '../../mesh/settings.ts';

describe('Consul’s address is read as its own programs read it', () => {
  const cases = [
    { env: { CONSUL_HTTP_ADDR: 'consul:8500' }, want: 'http://consul:8500' },
    { env: { CONSUL_HTTP_ADDR: 'consul:8501', CONSUL_HTTP_SSL: 'true' }, want: 'https://consul:8501' },
    { env: { CONSUL_HTTP_ADDR: 'https://consul.example/' }, want: 'https://consul.example' },
    { env: {}, want: undefined },
  ];
  for (const { env, want } of cases)
    test(JSON.stringify(env), () => assert.equal(workerSettings(env).consul?.url, want));
  test('a gateway without one looks on its own host', () =>
    assert.equal(gatewaySettings({}).consul.url, 'http://127.0.0.1:8500'));
});

test('a secret may come by file', t => {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-secret-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const key = randomBytes(32).toString('base64url');
  writeFileSync(join(folder, 'keys'), `${key}\n`);
  assert.equal(
    workerSettings({ MESH_SERVICE_KEYS_FILE: join(folder, 'keys') }).serviceKeys[0]?.toString('base64url'),
    key,
  );
  assert.throws(
    () => workerSettings({ MESH_SERVICE_KEYS_FILE: '/nowhere' }),
    /MESH_SERVICE_KEYS_FILE: cannot read \/nowhere/,
  );
});

test('so may a variable of the registry, which is read when it is asked for', t => {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-secret-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'token'), 'from a file\n');
  const env = registryEnvironment({
    TOKEN_FILE: join(folder, 'token'),
    PLAIN: 'plain',
    PLAIN_FILE: join(folder, 'token'),
    SSL_CERT_FILE: '/nowhere',
  });
  assert.deepEqual([env.TOKEN, env.PLAIN, env.OTHER], ['from a file', 'plain', undefined]);
  assert.throws(() => env.SSL_CERT, /SSL_CERT_FILE: cannot read \/nowhere/);
});

test('a worker’s image has one command line: the environment says which service, and where', () => {
  const { service, port } = workerSettings({ WORKER_SERVICE: 'everything', WORKER_PORT: '11100' });
  assert.deepEqual([service, port], ['everything', 11100]);
  assert.deepEqual([workerSettings({}).service, workerSettings({}).port], [undefined, undefined]);
  assert.throws(() => workerSettings({ WORKER_PORT: '99999' }), /WORKER_PORT: 99999 is not a port/);
});

describe('a value that makes no sense is refused by name', () => {
  const cases: {
    read: (env: Record<string, string>) => unknown;
    env: Record<string, string>;
    want: RegExp;
  }[] = [
    { read: startSettings, env: { MESH_PORT: '99999' }, want: /MESH_PORT: 99999 is not a port/ },
    { read: startSettings, env: { MESH_PORT: 'http' }, want: /MESH_PORT: "http" is not a whole number/ },
    {
      read: workerSettings,
      env: { MESH_ALLOW_UNAUTHENTICATED: 'maybe' },
      want: /MESH_ALLOW_UNAUTHENTICATED: "maybe"/,
    },
    { read: workerSettings, env: { CONSUL_HTTP_ADDR: 'http://' }, want: /CONSUL_HTTP_ADDR/ },
    {
      read: gatewaySettings,
      env: { MESH_TLS_CERT: 'x', MESH_TLS_KEY: 'y' },
      want: /give all three, or none/,
    },
    {
      read: workerSettings,
      env: { MESH_SERVICE_KEYS: 'abc' },
      want: /MESH_SERVICE_KEYS: key 1 has 2 bytes; it must be 32/,
    },
  ];
  for (const { read, env, want } of cases)
    test(JSON.stringify(env), () => assert.throws(() => read(env), want));
});

test('service keys: one root key gives each service its own', () => {
  const root = randomBytes(32);
  assert.deepEqual(deriveServiceKey(root, 'a'), deriveServiceKey(root, 'a'));
  assert.notDeepEqual(deriveServiceKey(root, 'a'), deriveServiceKey(root, 'b'));
  assert.equal(deriveServiceKey(root, 'a').length, 32);
});

import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { parseEnv } from 'node:util';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { folderFor, mesh } from './helpers.ts';

describe('mesh keys init', { concurrency: 4 }, () => {
  function registryFor(t: TestContext): string {
    const path = join(folderFor(t), 'registry.yaml');
    // A secret that nobody has set: names are all that is wanted.
    writeFileSync(
      path,
      'mcp_services:\n  - { name: a, command: x, env: { T: "${NEVER_SET}" } }\n  - { name: b, command: y }\n',
    );
    return path;
  }

  function checkKeys(gateway: NodeJS.Dict<string>, workers: Record<string, NodeJS.Dict<string>>): void {
    const seed = Buffer.from(gateway.MESH_IDENTITY_PRIVATE_KEY ?? '', 'base64url');
    const rootKey = Buffer.from(gateway.MESH_ROOT_KEYS ?? '', 'base64url');
    assert.deepEqual([seed.length, rootKey.length], [32, 32]);
    // RFC 8410: the seed behind the fixed head of a PKCS #8 Ed25519 key.
    const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]);
    const { x } = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })).export({
      format: 'jwk',
    });
    for (const [service, keys] of Object.entries(workers)) {
      assert.deepEqual(keys, {
        MESH_IDENTITY_PUBLIC_KEYS: x,
        MESH_SERVICE_KEYS: deriveServiceKey(rootKey, service).toString('base64url'),
      });
    }
  }

  test('prints keys that belong together, others each time', async t => {
    const registry = registryFor(t);
    const { code, out, err } = await mesh('keys', 'init', '--registry', registry);
    assert.equal(code, 0, err);
    const [gateway = '', a = '', b = ''] = out.split(/^# .*\n/m).slice(1);
    checkKeys(parseEnv(gateway), { a: parseEnv(a), b: parseEnv(b) });
    assert.notEqual((await mesh('keys', 'init', '--registry', registry)).out, out);
  });

  test('writes files that only their owner can read', async t => {
    const dir = join(folderFor(t), 'new', 'keys');
    const { code, err } = await mesh('keys', 'init', '--dir', dir, '--registry', registryFor(t));
    assert.equal(code, 0, err);
    const names = ['gateway.env', 'worker-a.env', 'worker-b.env'];
    assert.deepEqual(readdirSync(dir), names);
    for (const name of names) assert.equal(statSync(join(dir, name)).mode & 0o777, 0o600);
    assert.equal(statSync(dir).mode & 0o777, 0o700);
    const [gateway = {}, a = {}, b = {}] = names.map(name => parseEnv(readFileSync(join(dir, name), 'utf8')));
    checkKeys(gateway, { a, b });
  });

  test('never overwrites a file, and then leaves no other behind', async t => {
    const dir = join(folderFor(t), 'keys');
    mkdirSync(dir);
    writeFileSync(join(dir, 'worker-b.env'), 'precious');
    const { code, err } = await mesh('keys', 'init', '--dir', dir, '--registry', registryFor(t));
    assert.equal(code, 1);
    assert.match(err, /worker-b\.env is there already and is not overwritten; take another folder/);
    assert.deepEqual(readdirSync(dir), ['worker-b.env']);
    assert.equal(readFileSync(join(dir, 'worker-b.env'), 'utf8'), 'precious');
  });
});

import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { hashApiKey, loadAccessPolicy } from '../../mesh/access-policy.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { followPolicy } from '../../mesh/policy-file.ts';
import { until } from '../until.ts';
import { folderFor, MESH, mesh, run } from './helpers.ts';

const KEY = /^mk_[A-Za-z0-9_-]{43}\n$/;
const DAY_MS = 86_400_000;

/** A copy of the shipped policy with one more role. */
function policyFor(t: TestContext): string {
  const path = join(folderFor(t), 'access.yaml');
  const text = readFileSync('config/access.yaml', 'utf8');
  writeFileSync(path, text.replace('\nroles:\n', '\nroles:\n  reader: {} # nothing yet\n'));
  return path;
}

function keysIn(path: string) {
  return loadAccessPolicy(path).policy.apiKeys;
}

/** The comments of a YAML text in their order. */
function commentsOf(text: string): string[] {
  return text.match(/#.*/g) ?? [];
}

describe('mesh keys create', { concurrency: 4 }, () => {
  test('prints a key once and keeps its hash, with comments and order as they were', async t => {
    const path = policyFor(t);
    chmodSync(path, 0o640);
    const before = readFileSync(path, 'utf8');
    const { code, out } = await mesh(
      'keys',
      'create',
      'ci-bot',
      '--roles',
      'local,reader',
      '--expires',
      '2099-01-01',
      '--file',
      path,
    );
    assert.equal(code, 0);
    assert.match(out, KEY);
    assert.deepEqual(keysIn(path), [
      {
        id: 'ci-bot',
        hash: hashApiKey(out.trim()),
        roles: ['local', 'reader'],
        expires: Date.UTC(2099, 0, 1),
      },
    ]);
    const after = readFileSync(path, 'utf8');
    assert.ok(!after.includes(out.trim().slice(3)));
    assert.deepEqual(commentsOf(after), commentsOf(before));
    const added = after.split('\n').filter(line => !before.split('\n').includes(line));
    assert.equal(added.length, 5, added.join('\n'));
    assert.equal(statSync(path).mode & 0o777, 0o640);
    assert.deepEqual(readdirSync(join(path, '..')), ['access.yaml']);
  });

  test('adds to keys that are there, whatever style they are written in', async t => {
    for (const list of [
      'api_keys:\n  # first\n  - { id: a, hash: "H", roles: [r] } # a\n',
      'api_keys: [{ id: a, hash: "H", roles: [r] }]\n',
      '',
    ]) {
      const path = join(folderFor(t), 'access.yaml');
      writeFileSync(
        path,
        `${list.replace('H', `sha256:${'0'.repeat(64)}`)}roles: { r: {} } # roles\r\n# end\n`.replace(
          /\r?\n/g,
          '\r\n',
        ),
      );
      const before = readFileSync(path, 'utf8');
      const { code, err } = await mesh('keys', 'create', 'b', '--roles', 'r', '--file', path);
      assert.equal(code, 0, err);
      assert.deepEqual(
        keysIn(path).map(({ id }) => id),
        list === '' ? ['b'] : ['a', 'b'],
      );
      const after = readFileSync(path, 'utf8');
      assert.deepEqual(commentsOf(after), commentsOf(before));
      assert.ok(!/[^\r]\n/.test(after), 'line ends are as they were');
    }
  });

  const refusals: { desc: string; args: string[]; code: number; want: RegExp }[] = [
    {
      desc: 'id that is taken',
      args: ['taken', '--roles', 'local'],
      code: 1,
      want: /there is a key of "taken" already; `mesh keys rotate taken`/,
    },
    {
      desc: 'unknown role',
      args: ['x', '--roles', 'locla'],
      code: 1,
      want: /unknown role "locla"; did you mean "local"\?; there are: reader, local/,
    },
    { desc: 'no role', args: ['x'], code: 2, want: /--roles is missing/ },
    { desc: 'no id', args: ['--roles', 'local'], code: 2, want: /<id> is missing/ },
    { desc: 'two ids', args: ['x', 'y', '--roles', 'local'], code: 2, want: /"y" is one argument too many/ },
    { desc: 'id that breaks a line', args: ['x\ny', '--roles', 'local'], code: 2, want: /is no id/ },
    {
      desc: 'id with a meaning of its own',
      args: ['root', '--roles', 'local'],
      code: 2,
      want: /means a key of the mesh itself/,
    },
    {
      desc: 'end in the past',
      args: ['x', '--roles', 'local', '--expires', '2020-01-01'],
      code: 2,
      want: /2020-01-01 is past/,
    },
    {
      desc: 'end that is no date',
      args: ['x', '--roles', 'local', '--expires', '2099-02-30'],
      code: 2,
      want: /"2099-02-30" must be a date such as/,
    },
    {
      desc: 'unknown option',
      args: ['x', '--role', 'local'],
      code: 2,
      want: /unknown option --role; did you mean "--roles"/,
    },
    { desc: 'option without its value', args: ['x', '--roles'], code: 2, want: /--roles/ },
  ];
  for (const { desc, args, code, want } of refusals) {
    test(`is refused, and the file is as it was: ${desc}`, async t => {
      const path = policyFor(t);
      const text = readFileSync(path, 'utf8').replace(
        'api_keys: []',
        `api_keys: [{ id: taken, hash: "sha256:${'0'.repeat(64)}", roles: [] }]`,
      );
      writeFileSync(path, text);
      const result = await mesh('keys', 'create', ...args, '--file', path);
      assert.deepEqual([result.code, result.out], [code, '']);
      assert.match(result.err, want);
      assert.equal(readFileSync(path, 'utf8'), text);
      assert.deepEqual(readdirSync(join(path, '..')), ['access.yaml']);
    });
  }

  test('of a broken policy names its fault and changes nothing', async t => {
    const path = policyFor(t);
    const text = `${readFileSync(path, 'utf8')}rolls: {}\n`;
    writeFileSync(path, text);
    const { code, err } = await mesh('keys', 'create', 'x', '--roles', 'local', '--file', path);
    assert.equal(code, 1);
    assert.match(err, /access\.yaml:\d+: rolls: unknown key; did you mean "roles"/);
    assert.equal(readFileSync(path, 'utf8'), text);
  });

  test('of a policy that is not there says so', async t => {
    const { code, err } = await mesh(
      'keys',
      'create',
      'x',
      '--roles',
      'a',
      '--file',
      join(folderFor(t), 'no.yaml'),
    );
    assert.equal(code, 1);
    assert.match(err, /no\.yaml: cannot be read \(ENOENT\); --file names the access policy/);
  });

  test('a symbolic link stays one', async t => {
    const path = policyFor(t);
    const link = join(folderFor(t), 'link.yaml');
    symlinkSync(path, link);
    assert.equal((await mesh('keys', 'create', 'x', '--roles', 'local', '--file', link)).code, 0);
    assert.ok(lstatSync(link).isSymbolicLink());
    assert.equal(keysIn(path).length, 1);
  });

  test('of many at once: each key that was printed is in the file', async t => {
    const path = policyFor(t);
    const ids = ['a', 'b', 'c', 'd'];
    const results = await Promise.all(
      ids.map(id => mesh('keys', 'create', id, '--roles', 'local', '--file', path)),
    );
    const printed = results
      .filter(({ code }) => code === 0)
      .map(({ out }) => hashApiKey(out.trim()).toString('hex'));
    assert.deepEqual(
      keysIn(path)
        .map(({ hash }) => hash.toString('hex'))
        .sort(),
      printed.sort(),
    );
    for (const { code, err } of results)
      if (code !== 0) assert.match(err, /another `mesh keys` is changing the file/);
  });

  test('next to one that was killed says what to do', async t => {
    const path = policyFor(t);
    writeFileSync(`${path}.lock`, '');
    const { code, err, out } = await mesh('keys', 'create', 'x', '--roles', 'local', '--file', path);
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /access\.yaml\.lock is there: .*remove the file/);
    assert.ok(existsSync(`${path}.lock`), 'the lock of another is left alone');
  });

  test('on a full disk prints no key and leaves the file as it was', async t => {
    const path = policyFor(t);
    const before = readFileSync(path, 'utf8');
    // No file of this process may grow: a write fails as it does on a full disk.
    const command = 'ulimit -f 0; trap "" XFSZ; exec "$@"';
    const { code, out, err } = await run('bash', [
      '-c',
      command,
      '-',
      process.execPath,
      MESH,
      'keys',
      'create',
      'x',
      '--roles',
      'local',
      '--file',
      path,
    ]);
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /EFBIG/);
    assert.equal(readFileSync(path, 'utf8'), before);
    assert.deepEqual(readdirSync(join(path, '..')), ['access.yaml']);
  });
});

describe('mesh keys revoke', { concurrency: 4 }, () => {
  test('takes out what create put in, to the byte', async t => {
    const path = policyFor(t);
    const before = readFileSync(path, 'utf8');
    await mesh('keys', 'create', 'x', '--roles', 'local', '--file', path);
    assert.notEqual(readFileSync(path, 'utf8'), before);
    assert.equal((await mesh('keys', 'revoke', 'x', '--file', path)).code, 0);
    assert.equal(readFileSync(path, 'utf8'), before);
  });

  test('of an unknown id names the nearest', async t => {
    const path = policyFor(t);
    await mesh('keys', 'create', 'ci-bot', '--roles', 'local', '--file', path);
    const { code, err } = await mesh('keys', 'revoke', 'ci-bt', '--file', path);
    assert.equal(code, 1);
    assert.match(err, /there is no key of "ci-bt"; did you mean "ci-bot"\?; there are: ci-bot/);
    assert.equal(keysIn(path).length, 1);
  });
});

describe('mesh keys rotate', { concurrency: 4 }, () => {
  async function created(path: string, ...more: string[]): Promise<string> {
    const { out, err, code } = await mesh(
      'keys',
      'create',
      'bot',
      '--roles',
      'local',
      '--file',
      path,
      ...more,
    );
    assert.equal(code, 0, err);
    return out.trim();
  }
  async function rotated(path: string, ...more: string[]): Promise<string> {
    const { out, err, code } = await mesh('keys', 'rotate', 'bot', '--file', path, ...more);
    assert.equal(code, 0, err);
    assert.match(out, KEY);
    return out.trim();
  }

  test('makes a new key; the old one stays valid for a day', async t => {
    const path = policyFor(t);
    const old = await created(path);
    const start = Date.now();
    const key = await rotated(path);
    const [now, former, ...others] = keysIn(path);
    assert.deepEqual(
      [now, others],
      [{ id: 'bot', hash: hashApiKey(key), roles: ['local'], expires: undefined }, []],
    );
    assert.deepEqual(former?.hash, hashApiKey(old));
    const kept = (former?.expires ?? 0) - start;
    assert.ok(kept > DAY_MS - 2000 && kept < DAY_MS + 60_000, `kept for ${kept} ms`);
  });

  test('again keeps the older key as well; with --keep 0 all former ones end', async t => {
    const path = policyFor(t);
    const keys = [
      await created(path),
      await rotated(path, '--keep', '7d'),
      await rotated(path, '--keep', '30m'),
    ];
    const [first, second, third] = keysIn(path);
    assert.deepEqual([first?.hash, second?.hash, third?.hash], keys.map(hashApiKey).reverse());
    assert.ok((second?.expires ?? 0) < (third?.expires ?? 0));
    const last = await rotated(path, '--keep', '0');
    assert.deepEqual(
      keysIn(path).map(({ hash }) => hash),
      [hashApiKey(last)],
    );
  });

  test('never lets the old key outlive what the holder was given', async t => {
    const path = policyFor(t);
    const end = new Date(Date.now() + DAY_MS).toISOString();
    await created(path, '--expires', end);
    await rotated(path, '--keep', '30d', '--expires', 'never');
    const [now, former] = keysIn(path);
    assert.deepEqual(
      [now?.expires, Math.floor((former?.expires ?? 0) / 1000)],
      [undefined, Math.floor(Date.parse(end) / 1000)],
    );
  });

  test('of an expired key asks for another end, and drops the expired one', async t => {
    const path = policyFor(t);
    await created(path, '--expires', '2099-01-01');
    writeFileSync(path, readFileSync(path, 'utf8').replace('2099', '2020'));
    const { code, err } = await mesh('keys', 'rotate', 'bot', '--file', path);
    assert.equal(code, 1);
    assert.match(err, /"bot" expired on 2020-01-01; --expires gives it another end/);
    await rotated(path, '--expires', '2098-01-01');
    assert.deepEqual(
      keysIn(path).map(({ expires }) => expires),
      [Date.UTC(2098, 0, 1)],
    );
  });

  test('refuses a --keep that is no time', async t => {
    const path = policyFor(t);
    for (const keep of ['1', '1w', '-1h', '', '999999999d']) {
      assert.equal((await mesh('keys', 'rotate', 'bot', `--keep=${keep}`, '--file', path)).code, 2, keep);
    }
  });

  test('identity and root print new keys and the steps, and change nothing', async () => {
    const identity = await mesh('keys', 'rotate', 'identity');
    assert.match(identity.out, /MESH_IDENTITY_PUBLIC_KEYS=[\w-]{43},<the present value>\n/);
    const root = await mesh('keys', 'rotate', 'root');
    const [, key = ''] = /^MESH_ROOT_KEYS=([\w-]{43})$/m.exec(root.out) ?? [];
    const service = deriveServiceKey(Buffer.from(key, 'base64url'), 'everything').toString('base64url');
    assert.ok(
      root.out.includes(`# worker of everything\nMESH_SERVICE_KEYS=${service},<the value before 1>\n`),
    );
  });
});

test('a gateway that follows the policy knows a key from the moment it is made until it is revoked', async t => {
  const path = policyFor(t);
  const file = followPolicy({ path, pollMs: 20 });
  t.after(file.close);
  const knows = (key: string) => file.policy.apiKeys.some(({ hash }) => hash.equals(hashApiKey(key)));
  const { out } = await mesh('keys', 'create', 'x', '--roles', 'local', '--file', path);
  await until(() => knows(out.trim()));
  await mesh('keys', 'revoke', 'x', '--file', path);
  await until(() => !knows(out.trim()));
});

test('MESH_ACCESS_POLICY names the policy that gateways read, and that keys are written to', async t => {
  const path = policyFor(t);
  const { code, err } = await run('env', [
    `MESH_ACCESS_POLICY=${path}`,
    process.execPath,
    MESH,
    'keys',
    'create',
    'x',
    '--roles',
    'local',
  ]);
  assert.equal(code, 0, err);
  assert.equal(keysIn(path).length, 1);
});

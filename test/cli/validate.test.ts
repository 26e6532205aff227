import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { folderFor, mesh, meshWith } from './helpers.ts';

const ACCESS = 'roles:\n  all:\n    allow: [{ service: "*" }]\n';

function filesFor(t: TestContext, registry: string, access = ACCESS) {
  const folder = folderFor(t);
  const paths = { registry: join(folder, 'registry.yaml'), access: join(folder, 'access.yaml') };
  writeFileSync(paths.registry, registry);
  writeFileSync(paths.access, access);
  return { ...paths, args: ['validate', '--registry', paths.registry, '--access', paths.access] };
}

describe('mesh validate', { concurrency: 4 }, () => {
  test('the shipped files are fine, and summed up', async () => {
    const { code, out, err } = await mesh('validate');
    assert.deepEqual([code, err], [0, '']);
    assert.equal(
      out,
      'config/mcp-mesh-registry.yaml: 2 services, 5 instances\n' +
        'config/access.yaml: 1 role, 0 keys, 0 issuers of tokens\n0 faults, 0 warnings\n',
    );
  });

  test('all faults of both files are told, with file, line and field', async t => {
    const { args, registry, access } = filesFor(
      t,
      'mcp_services:\n  - { name: a, comand: x }\n  - name: B\n    command: node\n    instances: -1\n',
      'anonymous: locla\nroles:\n  local: {}\napi_keys: [{ id: x, roles: [nobody], hash: "sha256:00" }]\n',
    );
    const { code, out } = await mesh(...args);
    assert.equal(code, 1);
    assert.ok(
      out.includes(`${registry}:2: mcp_services[0].comand: unknown key; did you mean "command"?\n`),
      out,
    );
    assert.ok(out.includes(`${registry}:3: mcp_services[1].name: must be lower-case`), out);
    assert.ok(out.includes(`${registry}:5: mcp_services[1].instances: `), out);
    assert.ok(out.includes(`${access}:4: api_keys[0].hash: `), out);
    assert.match(out, /\n[4-9] faults, 0 warnings\n$/);
    const json = JSON.parse((await mesh(...args, '--json')).out);
    assert.deepEqual([json.ok, json.registry, json.access], [false, null, null]);
    assert.deepEqual(json.faults[0], {
      file: registry,
      line: 2,
      text: 'mcp_services[0].command: is missing; give it a value (string)',
    });
  });

  test('what is odd is a warning: commands, variables, folders, rules for nobody, expired keys', async t => {
    const { args, registry, access } = filesFor(
      t,
      [
        'mcp_services:',
        '  - { name: github, command: no-such-program, env: { PATH: /nowhere } }',
        '  - { name: files, command: node, cwd: /no/such/folder }',
        '  - name: mail',
        '    command: "${VALIDATE_TEST_UNSET}"',
        '    env: { A: "${VALIDATE_TEST_UNSET:-fine}" }',
        '  - { name: well, command: "${VALIDATE_TEST_SET}" }',
        '',
      ].join('\n'),
      'roles:\n  dev:\n    allow:\n      - { service: "g*" }\n      - { service: fiels }\n' +
        `api_keys: [{ id: old, roles: [dev], hash: "sha256:${'0'.repeat(64)}", expires: 2020-01-01 }]\n`,
    );
    const { code, out } = await meshWith({ env: { VALIDATE_TEST_SET: process.execPath } }, ...args);
    assert.equal(code, 0);
    for (const wanted of [
      `warning: ${registry}:5: mcp_services[2].command: the variable VALIDATE_TEST_UNSET is not set`,
      `warning: ${registry}:2: mcp_services[0].command: no-such-program is not found; its PATH is /nowhere`,
      `warning: ${registry}:3: mcp_services[1].command: its folder /no/such/folder does not exist`,
      `warning: ${access}:5: roles.dev.allow[1].service: "fiels" matches no service of the registry; did you mean "files"?`,
      `warning: ${access}:6: api_keys[0].expires: the key of "old" expired`,
      '4 services, 4 instances\n',
      '0 faults, 5 warnings\n',
    ])
      assert.ok(out.includes(wanted), `${wanted}\n\n${out}`);
  });

  test('files that are not there, are no YAML, or try to move the cursor', async t => {
    const { args, registry } = filesFor(t, 'mcp_services: [\u0007\n', '');
    const broken = await mesh(...args);
    assert.equal(broken.code, 1);
    assert.ok(broken.out.includes(`${registry}:`));
    assert.match(broken.out, /access\.yaml:1: the file is empty/);
    const gone = await mesh(
      'validate',
      '--registry',
      '/no/such.yaml',
      '--access',
      '/no/access.yaml',
      '--json',
    );
    assert.equal(gone.code, 1);
    const faults: { file: string; line: number | null }[] = JSON.parse(gone.out).faults;
    assert.deepEqual(
      faults.map(({ file, line }) => [file, line]),
      [
        ['/no/such.yaml', null],
        ['/no/access.yaml', null],
      ],
    );
    const { out } = await mesh(...filesFor(t, 'mcp_services: []\n"\\e[2J": 1\n').args);
    assert.ok(!out.includes('\u001b'), out);
  });
});

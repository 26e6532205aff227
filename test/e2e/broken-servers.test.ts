import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { readAnswer, SCRIPTED } from '../workers/helpers.ts';
import { type Mesh, runStart, startMesh } from './mesh-process.ts';

const folder = mkdtempSync(join(tmpdir(), 'mesh-e2e-'));
after(() => rmSync(folder, { recursive: true }));

function writeRegistry(name: string, yaml: string): string {
  const path = join(folder, name);
  writeFileSync(path, yaml);
  return path;
}

const command = `command: ${process.execPath}\n    args: [${SCRIPTED}]`;

describe('servers that do not work are visible with their reason, and harm no other', () => {
  let mesh: Mesh;
  before(async () => {
    const registry = writeRegistry(
      'broken.yaml',
      `mcp_services:
  - name: fine
    ${command}
  - name: dies
    ${command}
    env: { MODE: die }
  - name: mute
    ${command}
    env: { MODE: mute }
  - name: garbage
    ${command}
    env: { MODE: garbage }
  - name: missing
    command: /nowhere/server
`,
    );
    mesh = await startMesh({ MESH_REGISTRY: registry, MESH_HANDSHAKE_TIMEOUT_MS: '1500' });
  });
  after(() => mesh.stop());

  const execute = async (service: string) =>
    readAnswer(
      await fetch(`${mesh.url}/api/v1/mcp/${service}/execute`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"command":"echo","params":{"text":"hi"}}',
      }),
    );
  const cases = [
    { service: 'dies', reason: /child exits with 3/, forOperators: /last words: cannot open the database/ },
    { service: 'mute', reason: /initialize failed \(no answer within 1500 ms\)/ },
    { service: 'missing', reason: /child cannot be started \(command not found/ },
  ];
  for (const { service, reason, forOperators } of cases) {
    test(`${service}: 503 with the reason, in the answer, in the status and at the start`, async () => {
      let answer = await execute(service);
      while (/worker is starting|child is starting/.test(answer.text)) {
        await new Promise(resolve => setTimeout(resolve, 100));
        answer = await execute(service);
      }
      assert.deepEqual([answer.status, answer.json.code], [503, 'no_healthy_instance']);
      assert.match(answer.json.detail, reason);
      const status = await readAnswer(await fetch(`${mesh.url}/api/v1/mcp/${service}/status`));
      assert.deepEqual([status.status, status.json.instances, status.json.healthy], [200, 1, 0]);
      assert.match(status.json.details[0].reason, reason);
      assert.match(mesh.output(), reason);
      if (!forOperators) return;
      assert.match(mesh.output(), forOperators);
      // A server's own words may hold anything.
      assert.doesNotMatch(answer.text + status.text, forOperators);
    });
  }

  for (const service of ['fine', 'garbage']) {
    test(`${service}: answers`, async () => {
      const { status, json, text } = await execute(service);
      assert.deepEqual([status, json?.content?.[0].text], [200, 'hi'], text);
    });
  }
});

describe('a registry that cannot be used is refused at the start', () => {
  const cases = [
    {
      desc: 'unknown key',
      yaml: 'mcp_services:\n  - name: a\n    comand: x',
      want: /a\.yaml:3: mcp_services\[0\]\.comand: unknown key; did you mean "command"\?/,
    },
    {
      desc: 'unset variable',
      yaml: 'mcp_services:\n  - name: a\n    command: "${MESH_TEST_UNSET}"',
      want: /a\.yaml:3: mcp_services\[0\]\.command: the variable MESH_TEST_UNSET is not set/,
    },
    {
      desc: 'no such file',
      yaml: undefined,
      want: /cannot be read \(ENOENT\); MESH_REGISTRY names the registry file/,
    },
  ];
  for (const { desc, yaml, want } of cases) {
    test(desc, async () => {
      const path = yaml === undefined ? join(folder, 'none.yaml') : writeRegistry('a.yaml', yaml);
      const { code, output } = await runStart({ MESH_REGISTRY: path });
      assert.equal(code, 1);
      assert.match(output, want);
      assert.doesNotMatch(output, /\bat .*\.ts:\d+/);
    });
  }
});

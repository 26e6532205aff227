import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { KEY_VARIABLE } from '../../../cli/clients/client-format.ts';
import { folderFor, MESH, mesh } from '../helpers.ts';

const URL_OF = 'https://mesh.example/api/v1/mcp/github';
const REGISTRY =
  'mcp_services:\n  - { name: github, command: x, env: { T: "${NOT_SET}" } }\n  - { name: http_fetch, command: y }\n';

function setUp(t: TestContext) {
  const folder = folderFor(t);
  const path = join(folder, 'registry.yaml');
  writeFileSync(path, REGISTRY);
  const run = (...args: string[]) =>
    mesh('export', '--registry', path, '--url', 'https://mesh.example/', ...args);
  return { folder, path, run };
}

describe('mesh export', { concurrency: 4 }, () => {
  test("prints each client's form, the key by its own reference", async t => {
    const { run } = setUp(t);
    const header = (reference: string) => ({ headers: { Authorization: `Bearer ${reference}` } });
    const cases = {
      'claude-code': { mcpServers: { github: { type: 'http', url: URL_OF, ...header('${MESH_API_KEY}') } } },
      cursor: { mcpServers: { github: { url: URL_OF, ...header('${env:MESH_API_KEY}') } } },
      vscode: {
        inputs: [
          { type: 'promptString', id: 'mesh-api-key', description: 'API key of the mesh', password: true },
        ],
        servers: { github: { type: 'http', url: URL_OF, ...header('${input:mesh-api-key}') } },
      },
      windsurf: { mcpServers: { github: { serverUrl: URL_OF, ...header('${env:MESH_API_KEY}') } } },
      cline: {
        mcpServers: { github: { type: 'streamableHttp', url: URL_OF, ...header('${env:MESH_API_KEY}') } },
      },
    };
    for (const [client, want] of Object.entries(cases)) {
      const { code, out } = await run('github', '--client', client);
      assert.equal(code, 0);
      assert.deepEqual(JSON.parse(out), want, client);
    }
    const codex = await run('--client', 'codex');
    assert.equal(
      codex.out,
      `[mcp_servers.github]\nurl = "${URL_OF}"\nbearer_token_env_var = "MESH_API_KEY"\n\n[mcp_servers.http_fetch]\nurl = "${URL_OF.replace('github', 'http_fetch')}"\nbearer_token_env_var = "MESH_API_KEY"\n`,
    );
  });

  test('gives clients that speak stdio a program, and a file for the key', async t => {
    const { folder, run } = setUp(t);
    const bridge = {
      command: process.execPath,
      args: [MESH, 'connect', 'github', '--url', 'https://mesh.example'],
    };
    const desktop = await run('github', '--client', 'claude');
    assert.deepEqual(JSON.parse(desktop.out), { mcpServers: { github: bridge } });
    assert.match(desktop.err, /--key-file names a file/);
    const keyFile = join(folder, 'key');
    const withKey = await run('github', '--client', 'claude', '--key-file', keyFile);
    assert.deepEqual(JSON.parse(withKey.out).mcpServers.github.env, { [`${KEY_VARIABLE}_FILE`]: keyFile });
    const code = await run('github', '--client', 'claude-code', '--stdio');
    assert.deepEqual(JSON.parse(code.out).mcpServers.github, {
      type: 'stdio',
      ...bridge,
      env: { MESH_API_KEY: '${MESH_API_KEY}' },
    });
    assert.match(
      (await run('github', '--client', 'codex', '--stdio')).out,
      /^args = \[".*", "connect", "github".*\]\nenv_vars = \["MESH_API_KEY"\]$/m,
    );
  });

  test('leaves the key out, and says what is wrong', async t => {
    const { run } = setUp(t);
    const { out } = await run('--client', 'vscode', '--no-key', '--json');
    assert.deepEqual(JSON.parse(out).servers.http_fetch, {
      type: 'http',
      url: URL_OF.replace('github', 'http_fetch'),
    });
    const cases = [
      [[], 2, /--client is missing: one of claude, /],
      [['--client', 'vs-code'], 2, /"vs-code" is not known; did you mean "vscode"\?/],
      [['--client', 'cursor', '--key-file', 'x'], 2, /--key-file goes with --stdio/],
      [['--client', 'cursor', 'githib'], 1, /no service "githib"; did you mean "github"\?/],
    ] as const;
    for (const [args, code, message] of cases) {
      const result = await run(...args);
      assert.equal(result.code, code, args.join(' '));
      assert.match(result.err, message);
    }
  });

  test('prints what `mesh import` knows for the mesh again, so that nothing is added', async t => {
    const { folder, path, run } = setUp(t);
    const files = {
      claude: 'claude_desktop_config.json',
      'claude-code': '.mcp.json',
      cursor: 'c.json',
      vscode: 'v.json',
      windsurf: 'mcp_config.json',
      cline: 'cline_mcp_settings.json',
    };
    for (const [client, name] of Object.entries(files)) {
      const file = join(folder, name);
      writeFileSync(file, (await run('--client', client)).out);
      const { code, out } = await mesh(
        'import',
        file,
        '--client',
        client,
        '--registry',
        path,
        '--write',
        '--replace',
        '--json',
      );
      assert.equal(code, 0, client);
      const plan = JSON.parse(out);
      assert.deepEqual(
        plan.services.map(({ from, action, reason }: Record<string, string>) => [from, action, reason]),
        ['github', 'http_fetch'].map(service => [
          service,
          'skip',
          `it leads to the mesh already (${service})`,
        ]),
      );
      assert.deepEqual([plan.notes, plan.variables, plan.written], [[], [], false]);
      assert.equal(readFileSync(path, 'utf8'), REGISTRY);
    }
  });

  test('of what was imported is stable', async t => {
    const { folder } = setUp(t);
    const path = join(folder, 'r.yaml');
    const file = join(folder, '.mcp.json');
    writeFileSync(
      file,
      JSON.stringify({ mcpServers: { 'My Server': { command: 'x' }, http_fetch: { command: 'y' } } }),
    );
    const importing = () => mesh('import', file, '--registry', path, '--write');
    const exporting = () => mesh('export', '--client', 'claude-code', '--registry', path);
    await importing();
    const [registry, first] = [readFileSync(path, 'utf8'), await exporting()];
    assert.deepEqual(Object.keys(JSON.parse(first.out).mcpServers), ['my-server', 'http_fetch']);
    writeFileSync(file, first.out);
    await importing();
    assert.equal(readFileSync(path, 'utf8'), registry);
    assert.equal((await exporting()).out, first.out);
  });
});

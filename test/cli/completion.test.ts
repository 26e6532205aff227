import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { connectControl } from '../../workers/fleet/control-client.ts';
import { controlPath } from '../../workers/fleet/control-path.ts';
import { scripted, until } from '../workers/fleet/helpers.ts';
import { createSite } from '../workers/fleet/supervisor.ts';
import { folderFor, MESH, mesh, meshWith, run } from './helpers.ts';
import { json, startStubGateway } from './stub-gateway.ts';

const NOBODY = { MESH_URL: 'http://127.0.0.1:1' };

/** Words only, of what `mesh __complete` prints for the words behind `mesh`. */
async function complete(env: Record<string, string>, ...words: string[]): Promise<string[]> {
  const { code, out, err } = await meshWith({ env }, '__complete', '--', ...words);
  assert.deepEqual([code, err], [0, '']);
  return out.split('\n').flatMap(line => (line === '' ? [] : [line.split('\t', 1)[0] ?? '']));
}

function registryFor(t: TestContext): string {
  const path = join(folderFor(t), 'registry.yaml');
  writeFileSync(
    path,
    'mcp_services:\n  - { name: github, command: "${UNSET}" }\n  - { name: gitlab, command: x }\n  - { name: mail, command: x }\n',
  );
  return path;
}

/** What bash offers at the end of a line: its function is called as readline calls it. */
async function bashOffers(t: TestContext, env: Record<string, string>, line: string): Promise<string[]> {
  const folder = folderFor(t);
  const wrapper = join(folder, 'mesh');
  writeFileSync(wrapper, `#!/bin/sh\nexec "${process.execPath}" "${MESH}" "$@"\n`);
  chmodSync(wrapper, 0o755);
  const script = `
    source <(mesh completion bash)
    COMP_LINE=${JSON.stringify(line)}; COMP_POINT=\${#COMP_LINE}
    read -r -a COMP_WORDS <<<"$COMP_LINE"
    [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
    complete -p mesh >&2
    _mesh mesh "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const path = `${folder}${delimiter}${process.env.PATH ?? ''}`;
  const { code, out, err } = await run('bash', ['--noprofile', '--norc', '-c', script], {
    env: { ...env, PATH: path },
  });
  assert.deepEqual([code, err], [0, 'complete -o default -F _mesh mesh\n']);
  return out.split('\n').filter(word => word !== '');
}

describe('completion', { concurrency: 4 }, () => {
  test('of commands, subcommands, options and shells', async () => {
    const all = await complete(NOBODY, '');
    for (const name of ['up', 'status', 'call', 'keys', 'help']) assert.ok(all.includes(name), name);
    assert.ok(!all.includes('__complete'));
    assert.deepEqual(await complete(NOBODY, 'sta'), ['status']);
    assert.deepEqual(await complete(NOBODY, 'keys', 'r'), ['revoke', 'rotate']);
    assert.deepEqual(await complete(NOBODY, 'keys', 'create', '--ro'), ['--roles']);
    assert.deepEqual(await complete(NOBODY, 'status', '--'), ['--watch', '--registry', '--json', '--help']);
    assert.deepEqual(await complete(NOBODY, 'completion', ''), ['bash', 'zsh', 'fish']);
  });

  test('of services, from the registry that the line names, and tools from the gateway', async t => {
    const registry = registryFor(t);
    const { url } = await startStubGateway(t, json(404, {}));
    assert.deepEqual(await complete({ MESH_REGISTRY: registry }, 'tools', 'git'), ['github', 'gitlab']);
    assert.deepEqual(await complete(NOBODY, 'doctor', '--registry', registry, 'm'), ['mail']);
    assert.deepEqual(await complete({ MESH_URL: url }, 'call', 'github', ''), ['add', 'evil']);
    assert.deepEqual(await complete(NOBODY, 'call', '--url', '=', url, 'github', 'a'), ['add']);
    assert.deepEqual(await complete(NOBODY, 'scale', '--registry', ''), [], 'files are the shell’s business');
  });

  test('of the instances of a supervisor that runs', async t => {
    const site = await createSite(t, [scripted('alpha', { instances: 2 })]);
    const places = { registryPath: site.registryPath, stateDir: dirname(site.registryPath) };
    const socket = controlPath(places);
    await site.start({ socket });
    const control = connectControl(socket);
    const ids = await until('two instances', async () => {
      const { instances } = await control.status();
      const known = instances.flatMap(({ id }) => id ?? []);
      return known.length === 2 && known;
    });
    const env = { MESH_REGISTRY: places.registryPath, MESH_STATE_DIR: places.stateDir };
    assert.deepEqual((await complete(env, 'drain', '')).sort(), ids.toSorted());
    assert.deepEqual((await complete(env, 'restart', '')).sort(), ['alpha', ...ids].sort());
  });

  test('never fails, whatever is there', async t => {
    const folder = folderFor(t);
    writeFileSync(join(folder, 'broken.yaml'), 'mcp_services: [');
    const broken = { MESH_REGISTRY: join(folder, 'broken.yaml'), MESH_URL: 'nonsense', MESH_PORT: 'x' };
    const lines = [['call', ''], ['call', 'x', ''], ['nonsense', ''], ['--x', ''], ['scale', 'a', ''], ['']];
    for (const words of [...lines, ['\u001b[2J'], ['constructor', ''], ['keys', 'x', '--', '']])
      await complete(broken, ...words);
    for (const args of [[], ['--help'], ['--x', 'y']]) {
      const { code, err } = await mesh('__complete', ...args);
      assert.deepEqual([code, err], [0, '']);
    }
  });

  test('what could do harm in a command line is not offered', async t => {
    const tools = [{ name: '$(touch x)' }, { name: 'a b' }, { name: 'fine.tool:x' }];
    const { url } = await startStubGateway(t, json(404, {}), tools);
    assert.deepEqual(await complete({ MESH_URL: url }, 'call', 's', ''), ['fine.tool:x']);
  });

  test('bash gets it by the script', async t => {
    const env = { MESH_REGISTRY: registryFor(t) };
    assert.deepEqual(await bashOffers(t, env, 'mesh sta'), ['status']);
    assert.deepEqual(await bashOffers(t, env, 'mesh tools g'), ['github', 'gitlab']);
    assert.deepEqual(await bashOffers(t, env, 'mesh tools '), ['github', 'gitlab', 'mail']);
    assert.deepEqual(await bashOffers(t, env, 'mesh why --au'), ['--audit']);
    assert.deepEqual(await bashOffers(t, env, 'mesh keys --x'), []);
  });

  test('a shell that is not known is refused', async () => {
    const { code, err } = await mesh('completion', 'tcsh');
    assert.equal(code, 2);
    assert.match(err, /bash, zsh, fish/);
  });
});

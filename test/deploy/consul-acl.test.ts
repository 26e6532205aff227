import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Consul, createConsul, type Registration } from '../../mesh/consul.ts';
import { startWorkerProcess } from '../e2e/worker-process.ts';
import { installPlugin, startPluginGateway, writeOpenPolicy } from '../plugin-gateway.ts';
import { findConsul, type RealConsul, startRealConsul } from '../real-consul.ts';
import { skipWithout } from '../real-program.ts';
import { until } from '../until.ts';
import { parseHcl } from './hcl.ts';
import { ROOT, readRoot, renderings } from './rendered.ts';

const FOLDER = join(ROOT, 'config/consul');
const DENIED = /Permission denied|check the ACL policy/;

test('policies are HCL, and those of services what the registry renders', async t => {
  for (const file of readdirSync(FOLDER).filter(name => name.endsWith('.hcl')))
    await parseHcl(file, readFileSync(join(FOLDER, file), 'utf8'));
  for (const [path, text] of renderings(t, 'consul').shipped)
    assert.equal(readRoot(path), text, 'run: npx mesh render consul --dir .');
});

const found = findConsul();
const skip = skipWithout(found);
describe('tokens of a real Consul with ACLs, made by setup.sh', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-acl-'));
  const tokenOf = (whose: string) => readFileSync(join(folder, whose, 'consul-token'), 'utf8');
  const clients: Consul[] = [];
  let consul: RealConsul;
  const clientOf = (token: string): Consul => {
    const client = createConsul({ url: consul.url, token });
    clients.push(client);
    return client;
  };

  before(async () => {
    const mesh = join(ROOT, 'cli/mesh.ts');
    assert.equal(spawnSync(process.execPath, [mesh, 'render', 'secrets', '--dir', folder]).status, 0);
    const started = await startRealConsul({ managementToken: tokenOf('consul') });
    assert.ok(started.consul, started.reason);
    consul = started.consul;
    // Twice: it may be run again after a change.
    for (const run of [1, 2]) {
      const { status, stderr } = runSetup(consul.url, folder, found.binary ?? '');
      assert.equal(status, 0, `run ${run}: ${stderr}`);
    }
  });
  after(async () => {
    for (const client of clients) client.close();
    await consul?.close();
    rmSync(folder, { recursive: true });
  });

  test('a worker registers, reports, defines and finds its own service', async () => {
    const worker = clientOf(tokenOf('worker-everything'));
    const mine = registration('everything');
    await worker.register(mine);
    await worker.report(mine.id, 'passing', 'well');
    assert.equal(await worker.isRegistered(mine.id), true);
    await worker.putDefinition('everything', { name: 'everything' });
    assert.deepEqual(await worker.getDefinition('everything'), { name: 'everything' });
    assert.equal((await instancesOf(worker, 'mcp-everything'))[0]?.id, mine.id);
    await worker.deregister(mine.id);
  });

  test('and nothing else: no other service, no other definition, no other key', async () => {
    const worker = clientOf(tokenOf('worker-everything'));
    await assert.rejects(worker.register(registration('filesystem')), DENIED);
    await assert.rejects(worker.putDefinition('filesystem', {}), DENIED);
    const other = registration('filesystem');
    const owner = clientOf(tokenOf('worker-filesystem'));
    await owner.register(other);
    await assert.rejects(worker.deregister(other.id), DENIED);
    await assert.rejects(worker.report(other.id, 'passing', 'forged'), DENIED);
    assert.equal((await instancesOf(owner, 'mcp-filesystem')).length, 1);
    assert.deepEqual(await instancesOf(worker, 'mcp-filesystem'), [], 'nor does it see who they are');
    for (const [method, path] of [
      ['PUT', 'kv/mcp-mesh/other'],
      ['PUT', 'kv/mcp-mesh/services/everything2'],
      ['PUT', 'catalog/register'],
      ['GET', 'acl/tokens'],
    ] as const) {
      const body =
        method === 'PUT'
          ? JSON.stringify({ Node: 'n', Address: '1.2.3.4', Service: { Service: 'x' } })
          : null;
      const { status } = await fetch(`${consul.url}/v1/${path}`, {
        method,
        body,
        headers: { 'x-consul-token': tokenOf('worker-everything') },
      });
      assert.equal(status, 403, path);
    }
    await owner.deregister(other.id);
  });

  test('a gateway reads services and definitions, and writes nothing', async () => {
    const gateway = clientOf(tokenOf('gateway'));
    const worker = clientOf(tokenOf('worker-everything'));
    const mine = registration('everything');
    await worker.register(mine);
    assert.equal((await instancesOf(gateway, 'mcp-everything'))[0]?.id, mine.id);
    assert.ok(await gateway.getDefinition('everything'));
    await assert.rejects(gateway.register(registration('everything')), DENIED);
    await assert.rejects(gateway.report(mine.id, 'critical', 'x'), DENIED);
    await assert.rejects(gateway.deregister(mine.id), DENIED);
    await assert.rejects(gateway.putDefinition('everything', { name: 'forged' }), DENIED);
    await worker.deregister(mine.id);
  });

  test('with plugin-register.hcl it registers services of the mesh, and none but these', async () => {
    const token = randomUUID();
    const management = tokenOf('consul');
    const cli = (...args: string[]) => {
      const env = { CONSUL_HTTP_ADDR: consul.url, CONSUL_HTTP_TOKEN: management };
      const { status, stderr } = spawnSync(found.binary ?? '', args, { env, encoding: 'utf8' });
      assert.equal(status, 0, stderr);
    };
    const rules = `@${join(FOLDER, 'plugin-register.hcl')}`;
    cli('acl', 'policy', 'create', '-name', 'register', '-rules', rules);
    const policies = ['-policy-name', 'mcp-mesh-plugin', '-policy-name', 'register'];
    cli('acl', 'token', 'create', '-secret', token, ...policies);
    const gateway = clientOf(token);
    const foreign = registration('everything');
    // Without a heartbeat: only the HTTP check.
    const { ttlSeconds: _, ...checked } = foreign;
    await gateway.register(checked);
    await gateway.deregister(foreign.id);
    await assert.rejects(gateway.register({ ...checked, name: 'web' }), DENIED);
    await assert.rejects(gateway.putDefinition('everything', { name: 'forged' }), DENIED);
  });

  test('no token, or Prometheus’: nothing can be changed, and without one nothing is seen', async () => {
    for (const token of ['', tokenOf('prometheus')])
      await assert.rejects(clientOf(token).register(registration('everything')), DENIED);
    const seen = async (token: string) => {
      const headers = { 'x-consul-token': token };
      return (await (await fetch(`${consul.url}/v1/catalog/services`, { headers })).json()) as object;
    };
    assert.deepEqual(await seen(''), {});
    const { status } = await fetch(`${consul.url}/v1/agent/self`, {
      headers: { 'x-consul-token': tokenOf('prometheus') },
    });
    assert.equal(status, 200, 'it asks for the datacenter');
  });

  test('a worker and a gateway do their work with these tokens: a call goes through', async t => {
    const env = {
      CONSUL_HTTP_ADDR: consul.url,
      MESH_ADVERTISE_ADDRESS: '127.0.0.1',
      MESH_DRAIN_IDLE_MS: '0',
    };
    const tokenFile = (whose: string) => ({ CONSUL_HTTP_TOKEN_FILE: join(folder, whose, 'consul-token') });
    const printed: string[] = [];
    const worker = startWorkerProcess({
      service: 'everything',
      register: true,
      env: { ...env, ...tokenFile('worker-everything') },
      print: line => printed.push(line),
    });
    t.after(() => worker.kill());
    await worker.listens();
    const plugins = await installPlugin(folder);
    const policy = { MESH_ACCESS_POLICY: writeOpenPolicy(folder) };
    const gateway = await startPluginGateway(plugins, { ...env, ...policy, ...tokenFile('gateway') });
    t.after(gateway.close);
    const call = () =>
      fetch(`${gateway.url}/api/v1/mcp/everything/execute`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ command: 'echo', params: { message: 'hi' } }),
      });
    await until(
      'an answer',
      async () => (await call()).status === 200,
      () => printed.join('\n'),
    );
    assert.doesNotMatch(printed.join('\n'), /ACL policy|Consul does not take/);
  });
});

function runSetup(url: string, secrets: string, binary: string) {
  return spawnSync(join(FOLDER, 'setup.sh'), [secrets], {
    env: {
      PATH: `${dirname(binary)}:/usr/bin:/bin`,
      CONSUL_HTTP_ADDR: url,
      CONSUL_HTTP_TOKEN_FILE: join(secrets, 'consul/consul-token'),
    },
    encoding: 'utf8',
  });
}

function registration(service: string): Registration {
  return {
    id: `mcp-${service}-test-${basename(randomUUID())}`,
    name: `mcp-${service}`,
    address: '127.0.0.1',
    port: 9,
    tags: ['mcp'],
    meta: { mcp_server: service },
    weights: { passing: 1, warning: 1 },
    ttlSeconds: 60,
    deregisterAfterSeconds: 600,
    health: { url: 'http://127.0.0.1:9/health', intervalSeconds: 60, timeoutSeconds: 1 },
  };
}

/** What a look at the service finds first. */
function instancesOf(client: Consul, service: string): Promise<{ id: string }[]> {
  return new Promise((resolve, reject) => {
    const watch = client.watchInstances(
      service,
      instances => {
        watch.close();
        resolve(instances);
      },
      reject,
    );
  });
}

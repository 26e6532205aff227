import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { type RequestOptions, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Gateway, startGateway } from '../../kong/dev/gateway.ts';
import { withClientCertificate } from '../../kong/embed.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { requestProof } from '../../mesh/proof-request.ts';
import { GATEWAY_TLS_NAME, type MeshTls, workerTlsName } from '../../mesh/tls.ts';
import { type Authority, createAuthority } from '../certificates.ts';
import { installPlugin, writeOpenPolicy } from '../plugin-gateway.ts';
import { findConsul, type RealConsul, startRealConsul } from '../real-consul.ts';
import { skipWithout } from '../real-program.ts';
import { until } from '../until.ts';
import { ROOT } from './mesh-process.ts';
import { startWorkerProcess, type WorkerProcess } from './worker-process.ts';

const REGISTRY = {
  version: 1,
  mcp_services: [
    {
      name: 'everything',
      command: 'node',
      args: ['node_modules/@modelcontextprotocol/server-everything/dist/index.js'],
      isolation: 'session',
    },
  ],
};
const KONG_YML = join(ROOT, 'kong/kong-mtls.yml');
const SERVER = join(ROOT, 'kong-plugin/server.cjs');
const INITIALIZE = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
};
const ECHO = {
  jsonrpc: '2.0',
  id: 2,
  method: 'tools/call',
  params: { name: 'echo', arguments: { message: 'hi' } },
};

test('kong-mtls.yml is kong.yml, with a client certificate', () => {
  const kongYml = readFileSync(join(ROOT, 'kong/kong.yml'), 'utf8');
  assert.equal(readFileSync(KONG_YML, 'utf8'), withClientCertificate(kongYml), 'run: node kong/embed.ts');
});

const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'no openssl on PATH';
// The agent's own check of an https address is what only a real one has.
const skip = skipWithout(findConsul()) || (process.env.CI ? false : noOpenssl);
describe('TLS with certificates of both sides, from Kong to the workers and between them', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-tls-'));
  const rootKey = randomBytes(32);
  const key = deriveServiceKey(rootKey, 'everything').toString('base64url');
  const printed: string[] = [];
  const workers: WorkerProcess[] = [];
  let authority: Authority;
  let consul: RealConsul;
  let gateway: Gateway;
  let ofGateway: ReturnType<Authority['issue']>;
  const settings = ({ files }: ReturnType<Authority['issue']>) => ({
    CONSUL_HTTP_ADDR: consul.url,
    MESH_TLS_CERT_FILE: files.cert,
    MESH_TLS_KEY_FILE: files.key,
    MESH_TLS_CA_FILE: files.ca,
  });

  before(async () => {
    authority = createAuthority();
    ofGateway = authority.issue(GATEWAY_TLS_NAME);
    const started = await startRealConsul();
    assert.ok(started.consul, started.reason);
    consul = started.consul;
    const registry = join(folder, 'registry.yaml');
    writeFileSync(registry, JSON.stringify(REGISTRY));
    const env = {
      ...settings(authority.issue(workerTlsName('everything'))),
      MESH_REGISTRY: registry,
      MESH_ADVERTISE_ADDRESS: '127.0.0.1',
      MESH_SERVICE_KEYS: key,
    };
    for (let i = 0; i < 2; i += 1)
      workers.push(
        startWorkerProcess({ service: 'everything', register: true, env, print: line => printed.push(line) }),
      );
    await Promise.all(workers.map(worker => worker.listens()));
    gateway = await startGateway({
      configPath: KONG_YML,
      vault: { 'mesh-tls-cert': ofGateway.cert, 'mesh-tls-key': ofGateway.key },
      pluginServer: {
        command: [process.execPath, SERVER, '--plugins-directory', await installPlugin(folder)],
        env: {
          ...settings(ofGateway),
          MESH_ROOT_KEYS: rootKey.toString('base64url'),
          MESH_ACCESS_POLICY: writeOpenPolicy(folder),
        },
      },
      log: (_level, text) => printed.push(text),
    });
  });
  after(async () => {
    await gateway?.close();
    await Promise.all(workers.map(worker => worker.kill()));
    await consul?.close();
    authority?.remove();
    rmSync(folder, { recursive: true });
  });

  test('Consul finds the workers well, they prove themselves, and a call goes through', async () => {
    await until(
      'two healthy instances',
      async () => {
        const status = await (await fetch(`${gateway.url}/api/v1/mcp/everything/status`)).json();
        return (status as { healthy?: number }).healthy === 2;
      },
      () => printed.join('\n'),
    );
    for (let i = 0; i < 4; i += 1) {
      const answer = await fetch(`${gateway.url}/api/v1/mcp/everything/execute`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ command: 'echo', params: { message: 'hi' } }),
      });
      const text = await answer.text();
      assert.deepEqual([answer.status, /Echo: hi/.test(text)], [200, true], text);
    }
  });

  test('without a certificate, or with one that is not for this, there is health and nothing else', async () => {
    const port = workers[0]?.port ?? 0;
    const stranger = createAuthority();
    try {
      const shown: { tls: Partial<MeshTls>; statuses: number[] }[] = [
        { tls: {}, statuses: [200, 403, 403, 403] },
        { tls: stranger.issue(GATEWAY_TLS_NAME), statuses: [200, 403, 403, 403] },
        { tls: authority.issue(workerTlsName('other')), statuses: [200, 200, 403, 403] },
        { tls: ofGateway, statuses: [200, 200, 200, 400] },
      ];
      for (const { tls, statuses } of shown) {
        const { ca: _, ...certificate } = { cert: undefined, key: undefined, ...tls };
        const seen = ['/health', '/metrics', '/tools', '/proof'].map(path =>
          ask(port, { ...certificate, path }),
        );
        assert.deepEqual(
          (await Promise.all(seen)).map(({ status }) => status),
          statuses,
        );
      }
    } finally {
      stranger.remove();
    }
    await assert.rejects(fetch(`http://127.0.0.1:${port}/health`), 'no plain HTTP');
  });

  test('the health check of its image finds it', () => {
    const check = (port: number) =>
      spawnSync(process.execPath, [join(ROOT, 'workers/health-check.mjs'), String(port)]).status;
    assert.deepEqual([check(workers[0]?.port ?? 0), check(1)], [0, 1]);
  });

  test('a worker has the worker that holds a session answer for it', async () => {
    const [first, second] = workers.map(({ port }) => port) as [number, number];
    const opened = await ask(first, { ...ofGateway, path: '/mcp', method: 'POST' }, INITIALIZE);
    assert.equal(opened.status, 200, opened.text);
    const session = { 'mcp-session-id': String(opened.headers['mcp-session-id']) };
    const initialized = { jsonrpc: '2.0', method: 'notifications/initialized' };
    await ask(first, { ...ofGateway, path: '/mcp', method: 'POST', headers: session }, initialized);
    const answer = await ask(second, { ...ofGateway, path: '/mcp', method: 'POST', headers: session }, ECHO);
    assert.deepEqual([answer.status, /Echo: hi/.test(answer.text)], [200, true], answer.text);
  });

  test('who has no certificate for the service’s name proves nothing', async () => {
    const [worker] = workers;
    const place = {
      service: 'everything',
      id: worker?.instance ?? '',
      address: '127.0.0.1',
      port: worker?.port ?? 0,
    };
    const options = {
      keys: [Buffer.from(key, 'base64url')],
      timeoutMs: 5000,
      signal: new AbortController().signal,
    };
    assert.equal(await requestProof(place, { ...options, tls: ofGateway }), undefined);
    const other = await requestProof({ ...place, service: 'other' }, { ...options, tls: ofGateway });
    assert.deepEqual(other, { reason: 'no HTTP answer (ERR_TLS_CERT_ALTNAME_INVALID)', answered: true });
    const plain = await requestProof(place, options);
    assert.notEqual(plain, undefined);
  });
});

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  text: string;
}

/** One request to a worker, whose own certificate is not what is tested. */
async function ask(port: number, { headers, ...options }: RequestOptions, body?: object): Promise<Answer> {
  const call = request({
    ...options,
    host: '127.0.0.1',
    port,
    agent: false,
    rejectUnauthorized: false,
    headers: {
      accept: 'application/json, text/event-stream',
      ...(body && { 'content-type': 'application/json' }),
      ...headers,
    } as Record<string, string>,
  });
  call.end(body && JSON.stringify(body));
  const [response] = (await once(call, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode ?? 0, headers: response.headers, text };
}

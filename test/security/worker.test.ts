import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { describe, type TestContext, test } from 'node:test';
import { adHocService } from '../../mesh/registry.ts';
import { workerSettings } from '../../mesh/settings.ts';
import { startWorker } from '../../workers/worker.ts';
import {
  INITIALIZE,
  ready,
  SCRIPTED,
  scriptedService,
  silentLog,
  startTestWorker,
  type TestWorker,
} from '../workers/helpers.ts';
import { MODERN_META, modernHeaders } from '../workers/hostile/helpers.ts';
import { identityOf, makeKeys, policyOf, workerKeys } from './keys.ts';

/** A worker's own port, as somebody reaches it who got past the gateway, or makes a browser ask. */

const keys = makeKeys();
const policy = policyOf({ roles: { user: { allow: [{ service: '*' }] } } });
const identity = identityOf(keys, { service: 'scripted', policy, roles: ['user'] });
const ROUTES = [
  ['POST', '/mcp'],
  ['GET', '/mcp'],
  ['DELETE', '/mcp'],
  ['POST', '/execute'],
  ['GET', '/tools'],
  ['POST', '/tools/echo'],
] as const;

describe('DNS rebinding', () => {
  test('a Host that is not the worker’s is refused on each route, whoever vouches for the caller', async t => {
    const worker = await start(t);
    const routes = [
      ...ROUTES,
      ['GET', '/health'],
      ['GET', '/metrics'],
      ['GET', `/proof?nonce=${'n'.repeat(43)}`],
    ] as const;
    for (const [method, path] of routes) {
      for (const host of ['evil.example', 'localhost.evil.example', 'worker']) {
        assert.equal(
          (await ask(worker, method, path, { ...identity, host })).status,
          403,
          `${method} ${path} ${host}`,
        );
      }
    }
  });

  test('an Origin that nobody allowed is refused, unless a gateway vouches for the caller', async t => {
    const origin = 'https://app.example.com';
    const [guarded, open] = [await start(t), await start(t, {})];
    for (const [method, path] of ROUTES) {
      for (const worker of [guarded, open]) {
        assert.equal((await ask(worker, method, path, { origin })).status, 403, `${method} ${path}`);
      }
      const forged = await ask(guarded, method, path, { origin, 'x-mesh-identity': 'forged' });
      assert.equal(forged.status, 403, `${method} ${path}`);
    }
    const vouched = await ask(guarded, 'POST', '/tools/echo', { origin, ...identity });
    assert.deepEqual([vouched.status, vouched.text], [200, '{"content":[{"type":"text","text":""}]}']);
    const unvouched = await ask(open, 'POST', '/tools/echo', { origin, ...identity });
    assert.equal(unvouched.status, 403, 'a worker without keys believes no identity');
  });
});

describe('a worker that others can reach', () => {
  const { serviceKeys = [], identityPublicKeys = [] } = workerKeys(keys, 'scripted');
  const lacking = {
    'no key at all': {},
    'no key of gateways': { serviceKeys },
    'no key of its service': { identityPublicKeys },
  };
  for (const [desc, settings] of Object.entries(lacking)) {
    test(`does not start with ${desc}`, async () => {
      for (const advertiseAddress of ['0.0.0.0', '10.1.2.3', '::']) {
        const options = { service: scriptedService(), log: silentLog, register: false };
        await assert.rejects(
          startWorker({ ...options, settings: { ...workerSettings({}), ...settings, advertiseAddress } }),
          /MESH_IDENTITY_PUBLIC_KEYS and MESH_SERVICE_KEYS/,
        );
      }
    });
  }
});

describe('a request starts no program and changes none', () => {
  test('there is no route that takes a command, an environment or a file', async t => {
    const worker = await start(t);
    const order = { command: 'sh', args: ['-c', 'id'], env: { A: 'b' }, cwd: '/', file: '/etc/passwd' };
    for (const path of [
      '',
      'spawn',
      'exec',
      'run',
      'command',
      'config',
      'env',
      'servers',
      'restart',
      'sse',
      'message',
    ]) {
      for (const method of ['POST', 'PUT', 'PATCH'] as const) {
        const { status } = await ask(worker, method, `/${path}`, identity, JSON.stringify(order));
        assert.ok([404, 405].includes(status), `${method} /${path}: ${status}`);
      }
    }
    for (const member of ['args', 'env', 'cwd', 'file', 'shell']) {
      const body = JSON.stringify({ command: 'echo', [member]: 'x' });
      const { status, text } = await ask(worker, 'POST', '/execute', identity, body);
      assert.deepEqual([status, text.includes(`unknown member \\"${member}\\"`)], [400, true], text);
    }
  });

  for (const isolation of ['shared', 'session', 'principal'] as const) {
    test(`nothing of a caller is in the server’s arguments or environment: isolation ${isolation}`, async t => {
      const mark = '$(touch marked);`id`|marked';
      const adHoc = adHocService({
        name: 'scripted',
        command: process.execPath,
        args: [SCRIPTED],
        isolation,
      });
      const worker = await startTestWorker(
        t,
        { ...adHoc, env: { MODE: '' } },
        {
          ...workerKeys(keys, 'scripted'),
          drainDeadlineMs: 100,
        },
      );
      await ready(worker);
      const caller = identityOf(keys, {
        service: 'scripted',
        policy,
        roles: ['user'],
        principal: `jwt:x#${mark}`,
      });
      for (const { pid, env } of await serversOf(worker, caller, mark)) {
        const read = (file: string) =>
          readFileSync(`/proc/${pid}/${file}`, 'utf8')
            .split('\0')
            .filter(text => text !== '');
        assert.deepEqual(read('cmdline'), [process.execPath, SCRIPTED]);
        assert.deepEqual(
          Object.keys(env).sort(),
          read('environ')
            .map(text => text.split('=', 1)[0])
            .sort(),
        );
        assert.ok(!JSON.stringify([env, read('environ')]).includes('marked'));
      }
    });
  }
});

/** The servers that a caller's calls of either era and of REST came to, each as it describes itself. */
async function serversOf(worker: TestWorker, caller: Record<string, string>, mark: string) {
  const params = { ...INITIALIZE.params, clientInfo: { name: mark, version: mark } };
  const opened = await worker.post('/mcp', { ...INITIALIZE, params }, caller);
  const session = {
    ...caller,
    'mcp-session-id': opened.headers.get('mcp-session-id') ?? '',
    'x-marked': 'marked',
  };
  const ways = {
    legacy: async (name: string) => {
      const params = { name, arguments: { mark, '--eval': mark }, _meta: { mark } };
      return (await worker.post('/mcp', { jsonrpc: '2.0', id: mark, method: 'tools/call', params }, session))
        .json.result;
    },
    modern: async (name: string) => {
      const params = { name, arguments: { mark }, _meta: MODERN_META };
      const body = { jsonrpc: '2.0', id: 1, method: 'tools/call', params };
      return (await worker.post('/mcp', body, { ...caller, ...modernHeaders('tools/call', name) })).json
        .result;
    },
    REST: async (name: string) =>
      (await worker.post(`/tools/${name}`, { mark, env: { MARK: mark } }, caller)).json,
  };
  const servers = [];
  for (const [way, call] of Object.entries(ways)) {
    // A call of its own server ends with it: only one that others follow can be looked at from outside.
    const lasting = way === 'legacy' || (await isLasting(call));
    const env = JSON.parse((await call('env')).content[0].text) as Record<string, string>;
    assert.ok(!JSON.stringify(env).includes('marked'), way);
    if (lasting) servers.push({ pid: Number((await call('pid')).content[0].text), env });
  }
  return servers;
}

async function isLasting(call: (name: string) => Promise<{ content: { text: string }[] }>): Promise<boolean> {
  const pids = [await call('pid'), await call('pid')].map(({ content }) => content[0]?.text);
  return pids[0] === pids[1];
}

async function start(t: TestContext, settings = workerKeys(keys, 'scripted')): Promise<TestWorker> {
  const worker = await startTestWorker(t, scriptedService(), { ...settings, drainDeadlineMs: 100 });
  await ready(worker);
  return worker;
}

/** By node:http, since fetch does not let a Host be written. */
function ask(
  { url }: TestWorker,
  method: string,
  path: string,
  headers: Record<string, string>,
  body = '{}',
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const accept = 'application/json, text/event-stream';
    const options = {
      method,
      headers: { 'content-type': 'application/json', accept, ...headers },
      agent: false,
    };
    const sent = request(`${url}${path}`, options, async response => {
      const chunks = await response.toArray();
      resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() });
    });
    sent.on('error', reject);
    sent.end(['GET', 'DELETE'].includes(method) ? undefined : body);
  });
}

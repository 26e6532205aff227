import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { type RealConsul, startRealConsul } from '../real-consul.ts';
import { until } from '../until.ts';
import { readAnswer } from '../workers/helpers.ts';
import { connectHttp, connectStdio } from './clients.ts';
import { givenMesh, NOT_OURS } from './given-mesh.ts';
import { descendants, isAlive, type Mesh, startMesh } from './mesh-process.ts';

const EVERYTHING = ['node_modules/@modelcontextprotocol/server-everything/dist/index.js'];
const FILESYSTEM = [
  'node_modules/@modelcontextprotocol/server-filesystem/dist/index.js',
  'config/example-files',
];

const given = givenMesh();

/** The shipped registry behind the gateway: real servers, the official client, curl's requests. */
function cases(mesh: () => Mesh, skip: string | false = false): void {
  const service = (name: string) => `${mesh().url}/api/v1/mcp/${name}`;
  const execute = async (name: string, body: unknown, headers = {}) =>
    readAnswer(
      await fetch(`${service(name)}/execute`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      }),
    );

  test('curl calls a tool', async () => {
    const { status, json, headers } = await execute('everything', {
      command: 'echo',
      params: { message: 'hi' },
    });
    assert.deepEqual([status, json.content[0].text], [200, 'Echo: hi']);
    assert.ok(headers.get('x-request-id'));
  });

  test('the SDK client gets from the mesh what it gets from the server itself', async t => {
    const [far, near] = await Promise.all([
      connectHttp(t, service('everything')),
      connectStdio(t, EVERYTHING),
    ]);
    const ask = [
      (client: typeof far) => client.listTools(),
      (client: typeof far) => client.listPrompts(),
      (client: typeof far) => client.listResources(),
      (client: typeof far) => client.listResourceTemplates(),
      (client: typeof far) =>
        client.getPrompt({ name: 'args-prompt', arguments: { city: 'Paris', state: 'Texas' } }),
      (client: typeof far) => client.readResource({ uri: 'demo://resource/static/document/features.md' }),
      (client: typeof far) => client.callTool({ name: 'echo', arguments: { message: 'Grüße, 世界 👋' } }),
      (client: typeof far) => client.callTool({ name: 'get-sum', arguments: { a: 2, b: 40 } }),
      (client: typeof far) => client.callTool({ name: 'get-tiny-image' }),
      (client: typeof far) =>
        client.callTool({ name: 'get-structured-content', arguments: { location: 'Chicago' } }),
      (client: typeof far) =>
        client.callTool({ name: 'get-annotated-message', arguments: { messageType: 'error' } }),
      (client: typeof far) => client.callTool({ name: 'get-sum', arguments: { a: 'two' } }),
    ];
    for (const question of ask) assert.deepEqual(await question(far), await question(near), String(question));
    assert.deepEqual(far.getServerVersion(), near.getServerVersion());
    assert.equal(far.getInstructions(), near.getInstructions());
  });

  test('the file server reads through the mesh what it reads directly', async t => {
    const [far, near] = await Promise.all([
      connectHttp(t, service('filesystem')),
      connectStdio(t, FILESYSTEM),
    ]);
    // Where a given mesh has the folder is its own matter.
    for (const name of [...(given ? [] : ['list_allowed_directories']), 'list_directory', 'read_text_file']) {
      const file = name === 'read_text_file' ? 'config/example-files/hello.txt' : 'config/example-files';
      const call = { name, arguments: name === 'list_allowed_directories' ? {} : { path: file } };
      assert.deepEqual(await far.callTool(call), await near.callTool(call));
    }
  });

  test('a long call streams its progress as it happens', async t => {
    const client = await connectHttp(t, service('everything'));
    const seen: { progress: number; answered: boolean }[] = [];
    let answered = false;
    const call = { name: 'trigger-long-running-operation', arguments: { duration: 2, steps: 4 } };
    const onprogress = ({ progress }: { progress: number }) => seen.push({ progress, answered });
    const result = await client.callTool(call, undefined, { onprogress }).finally(() => (answered = true));
    assert.match(JSON.stringify(result), /Long running operation completed/);
    // The server sends the last step right before its answer; the SDK may hand both over in one turn.
    assert.deepEqual(
      seen.slice(0, 3),
      [1, 2, 3].map(progress => ({ progress, answered: false })),
    );
  });

  test('one session is served by every instance', async t => {
    const client = await connectHttp(t, service('everything'));
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, i) => client.callTool({ name: 'echo', arguments: { message: `${i}` } })),
    );
    assert.deepEqual(
      answers.map(({ content }) => content),
      answers.map((_, i) => [{ type: 'text', text: `Echo: ${i}` }]),
    );
  });

  test('status and list come from the gateway', async () => {
    const status = (await readAnswer(await fetch(`${service('everything')}/status`))).json;
    assert.deepEqual([status.service, status.instances, status.healthy], ['everything', 3, 3]);
    assert.deepEqual([status.details[0].era, status.details[0].version], ['legacy', '2.0.0']);
    const list = (await readAnswer(await fetch(`${mesh().url}/api/v1/mcp`))).json;
    assert.deepEqual(
      list.services.map((entry: { service: string }) => entry.service),
      ['everything', 'filesystem'],
    );
  });

  describe('bad input gets the catalogue’s error', () => {
    const inputs = [
      { desc: 'unknown service', path: 'nope/execute', body: '{}', status: 404, code: 'unknown_service' },
      { desc: 'unknown path', path: 'everything/nope', body: '{}', status: 404, code: 'unknown_path' },
      {
        desc: 'the worker’s own paths are not for callers',
        path: 'everything/metrics',
        body: '{}',
        status: 404,
        code: 'unknown_path',
      },
      { desc: 'not JSON', path: 'everything/execute', body: '{"command"', status: 400, code: 'parse_error' },
      {
        desc: 'wrong content type',
        path: 'everything/execute',
        body: 'x',
        type: 'text/plain',
        status: 415,
        code: 'unsupported_media_type',
      },
      {
        desc: 'too large',
        path: 'everything/execute',
        body: 'x'.repeat(9_000_000),
        status: 413,
        code: 'too_large',
      },
    ];
    for (const { desc, path, body, type = 'application/json', status, code } of inputs) {
      test(desc, async () => {
        const response = await fetch(service(path), {
          method: 'POST',
          headers: { 'content-type': type },
          body,
        });
        const answer = await readAnswer(response);
        assert.deepEqual([answer.status, answer.json?.code], [status, code], answer.text.slice(0, 300));
      });
    }

    test('a Host that was rebound to us', async () => {
      const { hostname, port } = new URL(mesh().url);
      const call = request({
        host: hostname,
        port,
        path: '/api/v1/mcp/everything/tools',
        headers: { host: 'evil.example' },
      }).end();
      const [response] = (await once(call, 'response')) as [{ statusCode: number; resume(): void }];
      response.resume();
      assert.equal(response.statusCode, 403);
    });
  });

  test('kill -9 of a worker: the next calls succeed on the others, and it comes back', { skip }, async () => {
    const workers = () =>
      descendants(mesh().pid).filter(({ command }) =>
        command.endsWith('worker.mjs everything --supervised '),
      );
    const [victim] = workers();
    assert.ok(victim);
    process.kill(victim.pid, 'SIGKILL');
    // Until it is reaped its sockets may still take a call, and lose it; the calls after that are what is tested.
    while (existsSync(`/proc/${victim.pid}`)) await pause(1);
    for (let i = 0; i < 30; i += 1) {
      const { status, json, text } = await execute('everything', {
        command: 'echo',
        params: { message: `${i}` },
      });
      assert.deepEqual([status, json?.content?.[0].text], [200, `Echo: ${i}`], text);
    }
    let status: unknown;
    await until(
      'three healthy instances',
      async () => {
        // At its port, under its id.
        const { json } = await readAnswer(await fetch(`${service('everything')}/status`));
        status = json;
        return json.instances === 3 && json.healthy === 3 && workers().length === 3;
      },
      () => `${JSON.stringify(status)}\n${mesh().output()}`,
    );
    assert.ok(workers().every(({ pid }) => pid !== victim.pid));
  });

  test('Ctrl-C stops every process', { skip }, async () => {
    const pids = descendants(mesh().pid).map(({ pid }) => pid);
    assert.ok(pids.length >= 11, `only ${pids.length} processes were running`);
    assert.equal(await mesh().stop(), 0);
    assert.deepEqual(pids.filter(isAlive), []);
  });
}

describe(`one call, end to end, ${given ? `through ${given.url}` : 'with the stand-in for Consul'}`, () => {
  let mesh: Mesh;
  before(async () => {
    mesh = await startMesh();
  });
  after(() => mesh.stop());
  cases(() => mesh, given ? NOT_OURS : false);
});

const real = given ? { reason: '' } : await startRealConsul();
const skip = given
  ? 'KONG_URL is set: its Consul is a real one'
  : real.consul || process.env.CI
    ? false
    : real.reason;
describe('one call, end to end, with a real Consul', { skip }, () => {
  let mesh: Mesh;
  let consul: RealConsul;
  before(async () => {
    assert.ok(real.consul, real.reason);
    consul = real.consul;
    mesh = await startMesh({ CONSUL_HTTP_ADDR: consul.url });
  });
  after(async () => {
    await mesh?.stop();
    await consul?.close();
  });
  cases(() => mesh);
});

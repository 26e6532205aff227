import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { embedHandoff } from '../../kong/embed.ts';
import { until } from '../until.ts';
import {
  closedPort,
  decide,
  echo,
  open,
  routeTo,
  script,
  send,
  startTcpWorker,
  startTestGateway,
  startWorker,
} from './gateway-helpers.ts';

const { gateway, lines, record } = await startTestGateway(after);

const LUA = readFileSync(new URL('../../kong/handoff.lua', import.meta.url), 'utf8');
const KONG_CONF = readFileSync(new URL('../../kong/kong.conf', import.meta.url), 'utf8');
const DOCKERFILE = readFileSync(new URL('../../kong/Dockerfile', import.meta.url), 'utf8');
const KONG_YML = readFileSync(new URL('../../kong/kong.yml', import.meta.url), 'utf8');

test('kong.yml holds handoff.lua as it is, and the Lua is under 80 lines', () => {
  assert.equal(embedHandoff(KONG_YML, LUA), KONG_YML, 'run: node kong/embed.ts');
  assert.notEqual(embedHandoff(KONG_YML, LUA.replace('"no_decision"', '"changed"')), KONG_YML);
  assert.ok(LUA.trimEnd().split('\n').length < 80);
});

test('kong.conf: Kong looks where plugin-server.sh leaves the socket and plugin.json, and starts nothing', () => {
  const lines = KONG_CONF.split('\n').filter(line => line !== '' && !line.startsWith('#'));
  const settings = new Map(lines.map(line => line.split(/ = (.*)/, 2) as [string, string]));
  const [, folder] = /ENTRYPOINT .*plugin-server\.sh"\]\nCMD \["(.+)"\]/.exec(DOCKERFILE) ?? [];
  assert.equal(settings.get('pluginserver_mesh_socket'), `${folder}/mesh.sock`);
  assert.equal(settings.get('pluginserver_mesh_query_cmd'), `cat ${folder}/plugin.json`);
  assert.equal(settings.has('pluginserver_mesh_start_cmd'), false);
  assert.deepEqual(
    ['database', 'plugins', 'pluginserver_names', 'proxy_listen', 'upstream_keepalive_idle_timeout'].map(
      key => settings.get(key),
    ),
    ['off', 'bundled,mcp-mesh', 'mesh', '0.0.0.0:10010', '15'],
  );
});

test('the image with both: the plugin server listens where Kong looks, and answers the query without the socket', () => {
  const setting = (name: string) =>
    new RegExp(`KONG_PLUGINSERVER_MESH_${name}="?([^"\\n\\\\]+)`).exec(DOCKERFILE)?.[1]?.trim();
  const [, prefix, name] = /--kong-prefix (\S+) --sock-name (\S+)/.exec(setting('START_CMD') ?? '') ?? [];
  assert.equal(setting('SOCKET'), `${prefix}/${name}`);
  // The query needs none of the settings that the server is started with.
  const [command] =
    setting('START_CMD')
      ?.replace(/--env-file\S+ /, '')
      .split(' --kong-prefix') ?? [];
  assert.equal(setting('QUERY_CMD'), `${command} --dump-all-plugins`);
});

test('forged x-mesh headers reach neither plugin nor worker', async t => {
  const worker = await startWorker(t.after.bind(t), echo);
  const forged = { 'X-Mesh-Identity': 'forged', 'x-mesh-targets': ['a', 'b'] };
  const seen = JSON.parse((await send(gateway, { headers: forged })).text);
  assert.deepEqual(names(seen.request.headers, 'x-mesh-'), []);
  await send(gateway, { headers: { ...forged, 'x-tag': 'forged' } });
  assert.deepEqual(names((await record('forged')).request.headers, 'x-mesh-'), [], 'nor other plugins');
  const routed = await send(gateway, { headers: { ...forged, ...routeTo([worker]) } });
  assert.deepEqual(names(JSON.parse(routed.text).headers, 'x-mesh-'), []);
});

test('the plugin sees method, path, query, client address and headers, several values as a list', async () => {
  const answer = await send(gateway, {
    method: 'DELETE',
    path: '/api/v1/mcp/%61/../b?q=%20x&q=2',
    headers: { accept: ['a', 'b'], 'x-one': 'ü' },
  });
  const { request } = JSON.parse(answer.text);
  assert.equal(request.method, 'DELETE');
  assert.equal(request.path, '/api/v1/mcp/b');
  assert.equal(request.query, 'q=%20x&q=2');
  assert.equal(request.client_ip, '127.0.0.1');
  assert.deepEqual(request.headers.accept, ['a', 'b']);
  assert.equal(request.headers['x-one'], Buffer.from('ü', 'latin1').toString());
  assert.equal(request.body, undefined);
});

test('an answer decision reaches the client unchanged', async () => {
  const body = JSON.stringify({ code: 'rate_limited', text: 'ü' });
  const headers = { 'content-type': 'application/problem+json', 'retry-after': '7', 'x-list': ['1', '2'] };
  const answer = await send(gateway, {
    headers: { ...decide({ status: 429, headers, body }), 'x-tag': 'answered' },
  });
  assert.equal(answer.status, 429);
  assert.equal(answer.text, body);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  assert.equal(answer.headers['retry-after'], '7');
  assert.equal(answer.headers['x-list'], '1, 2');
  const entry = await record('answered');
  assert.deepEqual(
    [entry.response.status, entry.tries, entry.upstream_status, entry.latencies.proxy, entry.source],
    [429, [], '', -1, 'kong'],
  );
});

test('a routed call goes to the target with path, query, headers and its own host', async t => {
  const worker = await startWorker(t.after.bind(t), echo);
  const answer = await send(gateway, {
    method: 'POST',
    path: '/api/v1/mcp/test?a=1',
    headers: {
      ...routeTo([worker], { path: '/mcp/ü', headers: { 'x-mesh-identity': 'signed' } }),
      'content-type': 'text/plain',
      'x-tag': 'routed',
    },
    body: 'payload',
  });
  const seen = JSON.parse(answer.text);
  assert.equal(seen.method, 'POST');
  assert.equal(seen.url, '/mcp/%C3%BC?a=1');
  assert.equal(seen.body, 'payload');
  assert.equal(seen.headers.host, `127.0.0.1:${worker}`);
  assert.equal(seen.headers['x-mesh-identity'], 'signed');
  const entry = await record('routed');
  assert.equal(entry.upstream_status, '200');
  assert.equal(entry.source, 'upstream');
  assert.deepEqual(entry.mesh, { record: { targets: [worker] } });
  assert.equal('x-mesh-identity' in entry.request.headers, false, 'the signed identity is in no log');
});

test('headers of the decision reach the client with the worker’s answer, and with Kong’s own', async t => {
  const worker = await startWorker(t.after.bind(t), echo);
  const answer_headers = { ratelimit: '"default";r=9;t=60' };
  for (const port of [worker, await closedPort()]) {
    const answer = await send(gateway, { headers: routeTo([port], { answer_headers }) });
    assert.equal(answer.headers.ratelimit, '"default";r=9;t=60', String(answer.status));
  }
});

test('a closed first port: the second target answers, with its own Host, and the log has both tries', async t => {
  const closed = await closedPort();
  const worker = await startWorker(t.after.bind(t), echo);
  const answer = await send(gateway, {
    method: 'POST',
    headers: { ...routeTo([closed, worker]), 'x-tag': 'retried' },
    body: 'sent once',
  });
  assert.equal(answer.status, 200);
  assert.equal(JSON.parse(answer.text).headers.host, `127.0.0.1:${worker}`);
  assert.equal(JSON.parse(answer.text).body, 'sent once');
  const entry = await record('retried');
  assert.equal(entry.upstream_status, '502, 200');
  assert.deepEqual(
    entry.tries.map(({ ip, port, state, code }) => ({ ip, port, state, code })),
    [
      { ip: '127.0.0.1', port: closed, state: 'failed', code: 502 },
      { ip: '127.0.0.1', port: worker, state: undefined, code: undefined },
    ],
  );
});

test('all targets closed: 502 with the prepared failure body', async () => {
  const ports = [await closedPort(), await closedPort()];
  const answer = await send(gateway, { headers: { ...routeTo(ports), 'x-tag': 'all-closed' } });
  assert.equal(answer.status, 502);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  assert.equal(answer.text, '{"code":"worker_lost"}');
  assert.ok(answer.complete, 'the length is not that of the body which it replaced');
  const entry = await record('all-closed');
  assert.deepEqual(
    entry.tries.map(({ port }) => port),
    ports,
  );
  assert.equal(entry.upstream_status, '502, 502');
});

test('one closed target is tried once', async () => {
  await send(gateway, { headers: { ...routeTo([await closedPort()]), 'x-tag': 'once' } });
  assert.equal((await record('once')).upstream_status, '502');
});

test("a worker's own error passes unchanged, and so does Kong's 500", async t => {
  const worker = await startWorker(
    fn => t.after(fn),
    (_call, response) => {
      response.writeHead(503, { 'content-type': 'application/problem+json' });
      response.end('{"code":"queue_full"}');
    },
  );
  assert.equal((await send(gateway, { headers: routeTo([worker]) })).text, '{"code":"queue_full"}');
  const broken = await send(gateway, { headers: routeTo([worker], { timeouts: [0, 0, 0] }) });
  assert.equal(broken.status, 500);
  assert.equal(JSON.parse(broken.text).message, 'An unexpected error occurred');
});

test('a worker that dies under a call: 502 with the prepared body, and no second worker gets the call', async t => {
  let second = 0;
  const dying = await startTcpWorker(t.after.bind(t), socket =>
    socket.once('data', () => socket.resetAndDestroy()),
  );
  const other = await startWorker(t.after.bind(t), (_request, response) => {
    second += 1;
    response.end();
  });
  const answer = await send(gateway, { method: 'POST', headers: routeTo([dying, other]), body: '{}' });
  assert.equal(answer.status, 502);
  assert.equal(answer.text, '{"code":"worker_lost"}');
  assert.equal(second, 0);
});

test('a stream that is cut after its start stays cut', async t => {
  const worker = await startTcpWorker(t.after.bind(t), socket => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n', () =>
        socket.destroySoon(),
      );
    });
  });
  const answer = await send(gateway, { headers: { ...routeTo([worker]), 'x-tag': 'cut' } });
  assert.equal(answer.status, 200);
  assert.equal(answer.text, 'first');
  assert.equal(answer.complete, false);
  assert.equal((await record('cut')).response.status, 200);
});

test("the caller's credentials end at the gateway and are in no log", async t => {
  const worker = await startWorker(t.after.bind(t), echo);
  const secrets = {
    authorization: 'Bearer secret',
    'proxy-authorization': 'Basic secret',
    'x-api-key': 'secret',
    cookie: 'a=secret',
    'x-consumer-username': 'secret',
    'x-credential-identifier': 'secret',
  };
  const routed = await send(gateway, { headers: { ...secrets, ...routeTo([worker]), 'x-tag': 'private' } });
  assert.equal(routed.status, 200);
  assert.doesNotMatch(routed.text, /secret/);
  const { 'x-consumer-username': _, 'x-credential-identifier': __, ...own } = secrets;
  await send(gateway, { headers: { ...own, ...decide({ status: 401, body: 'no' }), 'x-tag': 'refused' } });
  for (const tag of ['private', 'refused']) assert.doesNotMatch(JSON.stringify(await record(tag)), /secret"/);
  assert.equal((await record('refused')).request.headers.authorization, 'REDACTED');
});

test('the load header moves from the response into the log', async t => {
  const load = '{"cpu_utilization":0.5}';
  const worker = await startWorker(t.after.bind(t), (_request, response) => {
    response.setHeader('endpoint-load-metrics', load);
    response.setHeader('X-Mesh-Internal', 'x');
    response.setHeader('x-kept', 'y');
    response.end('ok');
  });
  const answer = await send(gateway, { headers: { ...routeTo([worker]), 'x-tag': 'load' } });
  assert.deepEqual(names(answer.headers, 'endpoint-load-metrics'), []);
  assert.deepEqual(names(answer.headers, 'x-mesh-'), []);
  assert.equal(answer.headers['x-kept'], 'y');
  assert.equal((await record('load')).mesh?.load, load);
});

test('the raw body of a mesh call arrives up to 64 KB, beyond it is absent and the plugin can tell', async () => {
  const post = async (body: string) => {
    const answer = await send(gateway, { method: 'POST', path: '/api/v1/mesh/v2/register', body });
    return JSON.parse(answer.text).request;
  };
  const nineKb = JSON.stringify({ text: 'ü'.repeat(4600) });
  assert.equal((await post(nineKb)).body, nineKb);
  assert.equal((await post('x'.repeat(65_536))).body.length, 65_536);
  assert.equal((await post('')).body, '');
  const over = await post('x'.repeat(65_537));
  assert.equal(over.body, undefined);
  assert.equal(over.body_over_limit, true);
  assert.equal(over.headers['content-length'], '65537');
});

test('100 headers pass, 250 are 431', async () => {
  const many = (count: number) => ({ 'x-many': Array.from({ length: count }, String) });
  // host and connection: keep-alive or close are two more.
  assert.equal((await send(gateway, { headers: many(98) })).status, 200);
  const answer = await send(gateway, { headers: { ...many(250), 'x-tag': 'too-many' } });
  assert.equal(answer.status, 431);
  assertProblem(answer, 431, 'too_many_headers');
  assert.equal((await record('too-many')).response.status, 431);
});

test('no decision, or one that says nothing, is 503', async () => {
  for (const decision of ['text', {}, { targets: [] }, { targets: 'x' }, { path: '/mcp' }]) {
    const answer = await send(gateway, { headers: decide(decision) });
    assertProblem(answer, 503, 'no_decision');
    assert.equal(answer.headers['retry-after'], '1');
  }
  const thrown = await send(gateway, { headers: script({ throw: 'in access' }) });
  assertProblem(thrown, 503, 'no_decision');
  const unanswered = await send(gateway, { headers: script({ silent: true }) });
  assertProblem(unanswered, 503, 'no_decision');
  await until('trace of the exception', () => lines.some(line => line.includes('Error: in access')));
});

test('time-outs of the decision hold: a silent worker is 504 with the prepared body', async t => {
  const worker = await startTcpWorker(t.after.bind(t), () => {});
  const answer = await send(gateway, {
    method: 'POST',
    headers: { ...routeTo([worker], { timeouts: [1000, 1000, 50] }), 'x-tag': 'silent' },
    body: '{}',
  });
  assert.equal(answer.status, 504);
  assert.equal(answer.text, '{"code":"timeout"}');
  assert.equal((await record('silent')).upstream_status, '504');
});

test('events pass one by one, and the abort of the client reaches the worker', async t => {
  const aborted = Promise.withResolvers<void>();
  let sendNext: (text: string) => void = () => {};
  const worker = await startWorker(t.after.bind(t), (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    sendNext = text => response.write(`data: ${text}\n\n`);
    response.on('close', () => aborted.resolve());
  });
  const stream = await open(gateway, { headers: { ...routeTo([worker]), 'x-tag': 'aborted' } });
  assert.equal(stream.headers['content-type'], 'text/event-stream');
  const events = stream.iterator({ destroyOnReturn: false });
  for (const text of ['1', '2', '3']) {
    // The next is written only after this one has arrived: nothing on the way may wait for more.
    sendNext(text);
    assert.equal(String((await events.next()).value), `data: ${text}\n\n`);
  }
  stream.destroy();
  await aborted.promise;
  assert.equal((await record('aborted')).response.status, 200);
});

test('two PDK round trips in access, one in the log phase', async t => {
  const fresh = await startTestGateway(t.after.bind(t));
  const worker = await startWorker(t.after.bind(t), echo);
  await send(fresh.gateway, { headers: { ...routeTo([worker]), 'x-tag': 'counted' } });
  await fresh.record('counted');
  await until('end of the log phase', () => fresh.gateway.pdkCalls().log.length > 0);
  assert.deepEqual(fresh.gateway.pdkCalls(), { access: [2], log: [1] });
});

function names(headers: Record<string, unknown>, prefix: string): string[] {
  return Object.keys(headers).filter(name => name.startsWith(prefix));
}

function assertProblem(
  answer: { status: number; text: string; headers: Record<string, unknown> },
  status: number,
  code: string,
) {
  assert.equal(answer.status, status);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  const problem = JSON.parse(answer.text);
  assert.equal(problem.status, status);
  assert.equal(problem.code, code);
  for (const field of ['type', 'title', 'detail']) assert.equal(typeof problem[field], 'string');
}

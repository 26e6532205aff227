import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { after, test } from 'node:test';
import { startGateway } from '../../kong/dev/gateway.ts';
import { until } from '../until.ts';
import {
  closedPort,
  echo,
  open,
  PLUGIN_SERVER,
  routeTo,
  script,
  send,
  startTcpWorker,
  startTestGateway,
  startWorker,
  writeKongYml,
} from './gateway-helpers.ts';

const shared = await startTestGateway(after);

/** A gateway whose pre-function is this Lua. */
async function withLua(
  t: { after: (cleanUp: () => unknown) => void },
  access: string,
  service: Record<string, unknown> = {},
) {
  const cleanUp = (fn: () => unknown) => t.after(fn);
  return startTestGateway(cleanUp, { configPath: await writeKongYml(cleanUp, { access }, service) });
}

test('an unknown route is 404 as Kong says it', async () => {
  const answer = await send(shared.gateway, { path: '/elsewhere' });
  assert.equal(answer.status, 404);
  const body = JSON.parse(answer.text);
  assert.equal(body.message, 'no Route matched with those values');
  assert.equal(body.request_id, answer.headers['x-kong-request-id']);
});

test('routes match the normalized path', async () => {
  const answer = await send(shared.gateway, { path: '/elsewhere/..//api/v1/%6dcp/x' });
  assert.equal(JSON.parse(answer.text).request.path, '/api/v1/mcp/x');
});

for (const [what, lua, name] of [
  ['global', 'local x = nothing_here', 'nothing_here'],
  ['PDK function', 'kong.service.set_upstream("x")', 'kong.service.set_upstream'],
  ['PDK function in a pcall', 'pcall(function() kong.vault.get("x") end)', 'kong.vault'],
  ['nginx variable', 'ngx.var.remote_addr = "x"', 'ngx.var.remote_addr'],
  ['library function', 'local s = ("x"):pack()', 'string.pack'],
] as const) {
  test(`an unknown ${what} of Lua is 500 and named in the log`, async t => {
    const { gateway, lines } = await withLua(t, lua);
    const answer = await send(gateway);
    assert.equal(answer.status, 500);
    assert.equal(JSON.parse(answer.text).message, 'An unexpected error occurred');
    assert.ok(
      lines.some(line => line.startsWith('err') && line.includes(name)),
      lines.join('\n'),
    );
  });
}

test('a PDK function in the wrong phase is 500', async t => {
  const { gateway, lines } = await withLua(t, 'kong.response.set_raw_body("x")');
  assert.equal((await send(gateway)).status, 500);
  assert.ok(lines.some(line => line.includes('cannot be called in access phase')));
});

test("operators that Kong's LuaJIT does not have are refused at the start", async t => {
  await assert.rejects(withLua(t, 'local x = 7 // 2'), /operator of Lua 5\.3/);
  await assert.rejects(withLua(t, 'local x = = 2'), /unexpected symbol/);
});

test('what the stand-in cannot do in kong.yml is refused at the start', async t => {
  const configPath = await writeKongYml(fn => t.after(fn), {}, { tls_verify: true });
  const start = () => startGateway({ configPath, pluginServer: { command: PLUGIN_SERVER } });
  await assert.rejects(start, /tls_verify/);
  writeFileSync(
    configPath,
    '_format_version: "3.0"\nservices: [{ name: x, host: y, routes: [], plugins: [{ name: acl }] }]',
  );
  await assert.rejects(start, /plugin acl/);
});

test('plugins that Kong runs and the stand-in does without are told, once; those that are off are not', async t => {
  const configPath = await writeKongYml(fn => t.after(fn), { access: 'kong.response.exit(200, "lua")' });
  const config = JSON.parse(readFileSync(configPath, 'utf8'));
  config.services[0].plugins.push({ name: 'cors' }, { name: 'acl', enabled: false });
  config.plugins = [{ name: 'cors' }, { name: 'prometheus' }, { name: 'opentelemetry', enabled: false }];
  writeFileSync(configPath, JSON.stringify(config));
  const { gateway, lines } = await startTestGateway(fn => t.after(fn), { configPath });
  const told = lines.filter(line => line.startsWith('notice the stand-in does without'));
  assert.deepEqual(told, ["notice the stand-in does without these plugins of Kong's own: cors, prometheus"]);
  assert.equal((await send(gateway)).text, 'lua');
});

test('a plugin for all services runs, unless the service has its own', async t => {
  const configPath = await writeKongYml(fn => t.after(fn), { access: 'kong.response.exit(200, "own")' });
  const config = JSON.parse(readFileSync(configPath, 'utf8'));
  const lua = (text: string) => ({ access: [`kong.response.exit(200, "${text}")`] });
  config.plugins = [{ name: 'pre-function', config: lua('all') }];
  config.services.push({
    ...config.services[0],
    name: 'other',
    plugins: [],
    routes: [{ ...config.services[0].routes[0], name: 'other', paths: ['/other'] }],
  });
  writeFileSync(configPath, JSON.stringify(config));
  const { gateway } = await startTestGateway(fn => t.after(fn), { configPath });
  assert.equal((await send(gateway)).text, 'own');
  assert.equal((await send(gateway, { path: '/other' })).text, 'all');
});

test('a chunk that returns a function is called from then on', async t => {
  const { gateway } = await withLua(
    t,
    'local n = 0\nreturn function() n = n + 1 kong.response.exit(200, "run " .. n) end',
  );
  assert.equal((await send(gateway)).text, 'run 1');
  assert.equal((await send(gateway)).text, 'run 2');
});

test('kong.response.exit stops the Lua at once, in a pcall, too', async t => {
  const lua =
    'pcall(function() kong.response.exit(201, { a = 1, empty = {} }) end)\nkong.response.exit(200, "went on")';
  const { gateway } = await withLua(t, lua);
  const answer = await send(gateway);
  assert.equal(answer.status, 201);
  assert.equal(answer.headers['content-type'], 'application/json; charset=utf-8');
  assert.equal(answer.headers['content-length'], String(answer.text.length));
  assert.deepEqual(JSON.parse(answer.text), { a: 1, empty: {} });
});

test('each request has its own ctx', async t => {
  const lua = `kong.ctx.plugin.n = (kong.ctx.plugin.n or 0) + 1
    kong.ctx.shared.n = (kong.ctx.shared.n or 0) + 1
    kong.response.exit(200, kong.ctx.plugin.n .. kong.ctx.shared.n)`;
  const { gateway } = await withLua(t, lua);
  assert.equal((await send(gateway)).text, '11');
  assert.equal((await send(gateway)).text, '11');
});

test('set_target freezes the Host header, without the port and for all tries', async t => {
  const closed = await closedPort();
  const worker = await startWorker(fn => t.after(fn), echo);
  const lua = `kong.service.set_target("localhost", ${closed})
    kong.service.set_target_retry_callback(function() kong.service.set_target("127.0.0.1", ${worker}) return true end)`;
  const { gateway } = await withLua(t, lua);
  assert.equal(JSON.parse((await send(gateway)).text).headers.host, 'localhost');
});

test('without a retry callback the same target is tried 1 + retries times', async t => {
  const { gateway, lines } = await withLua(t, `kong.service.set_target("127.0.0.1", ${await closedPort()})`);
  const answer = await send(gateway);
  assert.equal(answer.status, 502);
  assert.equal(JSON.parse(answer.text).message, 'An invalid response was received from the upstream server');
  assert.equal(lines.filter(line => line.includes('ECONNREFUSED')).length, 6);
});

test('a retry callback is not asked when the host of the service is an address', async t => {
  const worker = await startWorker(fn => t.after(fn), echo);
  const lua = `kong.service.set_target("127.0.0.1", ${await closedPort()})
    kong.service.set_retries(1)
    kong.service.set_target_retry_callback(function() kong.service.set_target("127.0.0.1", ${worker}) return true end)`;
  const { gateway } = await withLua(t, lua, { host: '127.0.0.1' });
  assert.equal((await send(gateway)).status, 502);
});

test('a retry callback that returns nil ends the tries', async t => {
  const lua = `kong.service.set_target("127.0.0.1", ${await closedPort()})
    kong.service.set_target_retry_callback(function() return nil, "enough" end)`;
  const { gateway, lines } = await withLua(t, lua);
  assert.equal((await send(gateway)).status, 502);
  assert.equal(lines.filter(line => line.includes('ECONNREFUSED')).length, 1);
  assert.ok(lines.some(line => line.includes('enough')));
});

test('a first target without an address is 503', async t => {
  const { gateway } = await withLua(t, 'kong.service.set_target("no-such-host.invalid", 80)');
  const answer = await send(gateway);
  assert.equal(answer.status, 503);
  assert.equal(JSON.parse(answer.text).message, 'name resolution failed');
});

test('a retry cannot resolve a name: 500', async t => {
  const lua = `kong.service.set_target("127.0.0.1", ${await closedPort()})
    kong.service.set_target_retry_callback(function() kong.service.set_target("no-such-host.invalid", 80) return true end)`;
  const { gateway, lines } = await withLua(t, lua);
  assert.equal((await send(gateway)).status, 500);
  assert.ok(lines.some(line => line.includes('a retry finds only names')));
});

test('headers: duplicates stay, hop-by-hop ones go, forwarding ones come', async t => {
  const worker = await startWorker(
    fn => t.after(fn),
    (call, response) => {
      response.writeHead(200, [
        'set-cookie',
        'a=1',
        'set-cookie',
        'b=2',
        'connection',
        'keep-alive, x-hop',
        'x-hop',
        '1',
      ]);
      response.end(JSON.stringify(call.rawHeaders));
    },
  );
  const answer = await send(shared.gateway, {
    headers: {
      ...routeTo([worker]),
      accept: ['a', 'b'],
      connection: 'close, x-private',
      'x-private': '1',
      te: 'trailers',
      'x-forwarded-for': '10.0.0.1',
    },
  });
  const raw: string[] = JSON.parse(answer.text);
  const values = (name: string) => raw.filter((_, i) => i % 2 === 1 && raw[i - 1]?.toLowerCase() === name);
  assert.deepEqual(values('accept'), ['a', 'b']);
  assert.deepEqual(values('x-forwarded-for'), ['10.0.0.1, 127.0.0.1']);
  assert.deepEqual(values('x-forwarded-proto'), ['http']);
  assert.deepEqual(values('x-forwarded-path'), ['/api/v1/mcp/test']);
  assert.deepEqual(values('via'), ['1.1 kong/3.9.3']);
  assert.deepEqual(values('connection'), ['keep-alive']);
  assert.deepEqual([...values('te'), ...values('x-private')], []);
  assert.deepEqual(answer.headers['set-cookie'], ['a=1', 'b=2']);
  assert.equal(answer.headers['x-hop'], undefined);
  assert.equal(answer.headers.via, '1.1 kong/3.9.3');
  assert.deepEqual(values('x-kong-request-id'), [answer.headers['x-kong-request-id']]);
  for (const name of ['x-kong-upstream-latency', 'x-kong-proxy-latency'])
    assert.match(String(answer.headers[name]), /^\d+$/);
});

test('an upload streams: the worker reads its start before the client has sent its end', async t => {
  const started = Promise.withResolvers<string>();
  const worker = await startWorker(
    fn => t.after(fn),
    (call, response) => {
      call.once('data', chunk => started.resolve(String(chunk)));
      call.on('end', () => response.end(String(call.headers['transfer-encoding'])));
    },
  );
  const answer = Promise.withResolvers<number | undefined>();
  const upload = request(
    {
      port: shared.gateway.port,
      method: 'POST',
      path: '/api/v1/mcp/x',
      headers: routeTo([worker]),
      agent: false,
    },
    response => {
      response.resume();
      answer.resolve(response.statusCode);
    },
  );
  upload.write('first');
  assert.equal(await started.promise, 'first');
  upload.end('second');
  assert.equal(await answer.promise, 200);
});

test('the read time-out counts between two reads', async t => {
  const gaps = await startTcpWorker(
    fn => t.after(fn),
    socket => {
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
        let left = 5;
        const timer = setInterval(() => {
          socket.write('1\r\nx\r\n');
          left -= 1;
          if (left === 0) clearInterval(timer);
        }, 100);
        t.after(() => clearInterval(timer));
      });
    },
  );
  // 500 ms of events in all, one each 100 ms, then silence: cut 300 ms after the last.
  const answer = await send(shared.gateway, { headers: routeTo([gaps], { timeouts: [1000, 1000, 300] }) });
  assert.equal(answer.status, 200);
  assert.equal(answer.text, 'xxxxx');
  assert.equal(answer.complete, false);
});

test('a client that leaves before the answer: the worker hears it, and the log says 499', async t => {
  const reached = Promise.withResolvers<void>();
  const gone = Promise.withResolvers<void>();
  const worker = await startWorker(
    fn => t.after(fn),
    (call, response) => {
      call.resume();
      reached.resolve();
      response.on('close', () => gone.resolve());
    },
  );
  const call = request({
    port: shared.gateway.port,
    path: '/api/v1/mcp/x',
    headers: { ...routeTo([worker]), 'x-tag': 'left' },
    agent: false,
  });
  call.on('error', () => {});
  call.end();
  await reached.promise;
  call.destroy();
  await gone.promise;
  assert.equal((await shared.record('left')).response.status, 499);
});

test('connections to a worker are kept and used again', async t => {
  const sockets = new Set<unknown>();
  const worker = await startWorker(
    fn => t.after(fn),
    (call, response) => {
      sockets.add(call.socket);
      response.end();
    },
  );
  for (let i = 0; i < 3; i += 1) await send(shared.gateway, { headers: routeTo([worker]) });
  assert.equal(sockets.size, 1);
});

test('a HEAD request and a 304 have no body', async t => {
  const worker = await startWorker(
    fn => t.after(fn),
    (call, response) => {
      response.writeHead(
        call.method === 'HEAD' ? 200 : 304,
        call.method === 'HEAD' ? { 'content-length': 7 } : {},
      );
      response.end();
    },
  );
  const head = await send(shared.gateway, { method: 'HEAD', headers: routeTo([worker]) });
  assert.deepEqual([head.status, head.headers['content-length'], head.text], [200, '7', '']);
  assert.equal((await send(shared.gateway, { headers: routeTo([worker]) })).status, 304);
});

test('PDK calls of the plugin answer as Kong does', async () => {
  const calls = [
    ['kong.request.get_method'],
    ['kong.request.get_path'],
    ['kong.request.get_header', 'Accept'],
    ['kong.request.get_headers'],
    ['kong.ctx.shared.get', 'nothing'],
    ['kong.ctx.shared.set', 'ü', { list: [], text: 'ü', deep: [1, { a: true }], gap: [1, null, 3] }],
    ['kong.ctx.shared.get', 'ü'],
    ['kong.log.set_serialize_value', 'mesh.note', 'from the plugin'],
    ['kong.log.warn', 'seen ', 'by Kong'],
  ];
  const headers = { ...script({ calls }), accept: ['a', 'b'], 'x-tag': 'pdk' };
  const { results } = JSON.parse((await send(shared.gateway, { headers })).text);
  assert.deepEqual(results.slice(0, 3), ['GET', '/api/v1/mcp/test', 'a']);
  assert.deepEqual(results[3].accept, ['a', 'b']);
  assert.deepEqual(results[3]['x-tag'], ['pdk']);
  assert.deepEqual(results.slice(4), [
    null,
    null,
    { list: [], text: 'ü', deep: [1, { a: true }], gap: { 1: 1, 3: 3 } },
    null,
    null,
  ]);
  assert.equal((await shared.record('pdk')).mesh?.['note' as never], 'from the plugin');
  assert.ok(shared.lines.includes('warn [mcp-mesh] seen by Kong'));
});

test('kong.response.exit of the plugin answers, and post-function does not run', async () => {
  const headers = script({ calls: [['kong.response.exit', 418, { tea: 'ü' }, { 'x-a': 'b' }]] });
  const answer = await send(shared.gateway, { headers });
  assert.equal(answer.status, 418);
  assert.equal(answer.text, '{"tea":"ü"}');
  assert.equal(answer.headers['x-a'], 'b');
});

for (const [what, call] of [
  ['unknown', ['kong.service.set_target', 'x', 1]],
  ['raising', ['kong.response.exit', 'not a status']],
  ['prototype', ['kong.constructor']],
] as const) {
  test(`an ${what} PDK call of the plugin is 500, with its trace in the log`, async () => {
    const before = shared.lines.length;
    assert.equal((await send(shared.gateway, { headers: script({ calls: [call] }) })).status, 500);
    const expected = what === 'raising' ? 'code must be an integer' : call[0];
    assert.ok(shared.lines.slice(before).some(line => line.startsWith('err') && line.includes(expected)));
  });
}

test("what hangs in Kong's log phase hangs here, and nothing else waits for it", async () => {
  const headers = { 'x-test-log': JSON.stringify([['kong.request.get_path']]), 'x-tag': 'hanging' };
  await send(shared.gateway, { headers });
  await until('warning', () =>
    shared.lines.some(line => line.includes('kong.request.get_path hangs for ever')),
  );
  const works = [
    ['kong.request.get_headers'],
    ['kong.response.get_status'],
    ['kong.ctx.shared.get', 'mesh_decision'],
  ];
  await send(shared.gateway, { headers: { 'x-test-log': JSON.stringify(works), 'x-tag': 'working' } });
  await shared.record('working');
});

test('a large answer arrives whole through a slow reader', async t => {
  const size = 8 * 2 ** 20;
  const worker = await startWorker(
    fn => t.after(fn),
    (_call, response) => void response.end(Buffer.alloc(size, 'x')),
  );
  const stream = await open(shared.gateway, { headers: routeTo([worker]) });
  let read = 0;
  for await (const chunk of stream) {
    read += (chunk as Buffer).length;
    await new Promise(setImmediate);
  }
  assert.equal(read, size);
});

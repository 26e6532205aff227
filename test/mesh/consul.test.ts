import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { inspect } from 'node:util';
import { startConsul } from '../../kong/dev/consul.ts';
import { createConsul } from '../../mesh/consul.ts';
import { look, lookAtInstances, openConsul, startServer } from '../kong/consul-helpers.ts';

/** The client against servers that no good Consul would be. */

type Services = Map<string, string[]>;

/** Answers catalog/services with each entry in turn, then never again. */
async function startScript(t: TestContext, script: ((response: ServerResponse) => void)[]) {
  const asked: string[] = [];
  const url = await startServer(t, (request, response) => {
    asked.push(request.url ?? '');
    script[asked.length - 1]?.(response);
  });
  const consul = openConsul(t, url);
  const seen = look<Services>((onChange, onError) => consul.watchServices(onChange, onError));
  return { seen, asked };
}

function answer(index: number, services: object) {
  return (response: ServerResponse) => {
    response.writeHead(200, { 'content-type': 'application/json', 'x-consul-index': index });
    response.end(JSON.stringify(services));
  };
}

test('an index that goes back is followed by asking from the start', async t => {
  const script = [answer(900, { old: [] }), answer(5, { young: [] }), answer(6, { older: [] })];
  const { seen, asked } = await startScript(t, script);
  await seen.until(services => services.has('older'));
  const indexes = asked.map(url => new URL(url, 'http://x').searchParams.get('index'));
  assert.deepEqual(indexes.slice(0, 3), ['0', '900', '0']);
  assert.equal(seen.errors.length, 0);
});

test('other data under the same index are a change', async t => {
  const { seen } = await startScript(t, [answer(7, { a: [] }), answer(7, { b: [] })]);
  await seen.until(services => services.has('b'));
});

test('a higher index with the same data is none, whatever the order of the tags', async t => {
  const { seen } = await startScript(t, [
    answer(7, { a: ['x', 'y'] }),
    answer(8, { a: ['y', 'x'] }),
    answer(9, { b: [] }),
  ]);
  await seen.until(services => services.has('b'));
  assert.deepEqual(
    seen.values.map(services => [...services.keys()]),
    [['a'], ['b']],
  );
});

test('a watch goes on after each kind of bad answer', async t => {
  const bad: [desc: string, reply: (response: ServerResponse) => void, message: RegExp][] = [
    ['400', response => response.writeHead(400).end('Invalid index'), /400 Invalid index/],
    ['500', response => response.writeHead(500).end('No cluster leader'), /500 No cluster leader/],
    ['no index', response => response.writeHead(200, JSON_TYPE).end('{}'), /no X-Consul-Index/],
    ['index 0', answer(0, {}), /zero index/],
    [
      'not JSON',
      response => response.writeHead(200, { ...JSON_TYPE, 'x-consul-index': 3 }).end('{'),
      /decode/,
    ],
    ['wrong shape', answer(3, []), /expected an object/],
    ['cut', response => response.destroy(), /socket hang up/],
  ];
  await Promise.all(
    bad.map(async ([desc, reply, message]) => {
      const { seen } = await startScript(t, [answer(3, { first: [] }), reply, answer(4, { second: [] })]);
      const error = seen.untilError();
      await seen.until(services => services.has('second'));
      assert.match((await error).message, message, desc);
      assert.equal(seen.errors.length, 1, desc);
    }),
  );
});

test('the first answer after an error is handed on even when nothing changed', async t => {
  const { seen } = await startScript(t, [
    answer(3, { a: [] }),
    response => response.destroy(),
    answer(3, { a: [] }),
  ]);
  await seen.untilError();
  await seen.until(() => seen.values.length === 2);
});

test('a 404 of something in between does not empty the definitions', async t => {
  const url = await startServer(t, (_, response) => response.writeHead(404).end('no such page'));
  const seen = look<Map<string, unknown>>((...callbacks) =>
    openConsul(t, url).watchDefinitions(...callbacks),
  );
  assert.match((await seen.untilError()).message, /no X-Consul-Index/);
  assert.equal(seen.values.length, 0);
});

test('a server that answers every blocking query at once is not asked in a busy loop', async t => {
  let asked = 0;
  const url = await startServer(t, (_, response) => answer(++asked, { [`s${asked}`]: [] })(response));
  const started = performance.now();
  const seen = look<Services>((...callbacks) => openConsul(t, url).watchServices(...callbacks));
  await seen.until(services => services.has('s6'));
  assert.ok(performance.now() - started >= 450, 'five pauses of 100 ms lie between six requests');
});

test('a request without an answer ends with an error', async t => {
  const url = await startServer(t, () => undefined);
  const consul = openConsul(t, url);
  await assert.rejects(consul.isRegistered('x'), { name: 'ConsulError', message: /timed out \(5000ms\)/ });
});

test('the token goes to Consul and into no error', async t => {
  const tokens = new Set<string | string[] | undefined>();
  const url = await startServer(t, (request, response) => {
    tokens.add(request.headers['x-consul-token']);
    response.writeHead(403, { 'content-type': 'text/plain' }).end('Permission denied');
  });
  const consul = createConsul({ url, token: 'secret-token' });
  t.after(() => consul.close());
  const errors = await Promise.all([
    consul.deregister('x').catch(error => error),
    consul.isRegistered('x').catch(error => error),
    consul.putDefinition('x', 1).catch(error => error),
    lookAtInstances(consul, 'x').untilError(),
  ]);
  assert.deepEqual([...tokens], ['secret-token']);
  for (const error of errors) {
    assert.match(error.message, /403 Permission denied; check the ACL policy/);
    assert.equal(error.status, 403);
    assert.doesNotMatch(inspect(error, { depth: 10, showHidden: true }), /secret-token/);
  }
});

test('an IPv6 address and a path before /v1 work', async t => {
  const paths: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    paths.push(request.url);
    response.writeHead(200, JSON_TYPE).end('{}');
  });
  try {
    await once(server.listen(0, '::1'), 'listening');
  } catch {
    return t.skip('no IPv6 here');
  }
  t.after(() => server.close().closeAllConnections());
  const consul = openConsul(t, `http://[::1]:${(server.address() as AddressInfo).port}/consul/`);
  assert.equal(await consul.isRegistered('a/b'), true);
  assert.deepEqual(paths, ['/consul/v1/agent/service/a%2Fb']);
  assert.equal(await consul.localAddress(), '::1');
});

test('a bad address is refused at once', () => {
  for (const url of ['', 'localhost:8500', 'consul', 'ftp://consul:8500']) {
    assert.throws(() => createConsul({ url }), /must be http\(s\):\/\/host:port/);
  }
});

test('a process ends by itself after close, with watches open and Consul answering or not', async t => {
  const { url, close } = await startConsul();
  t.after(close);
  const script = `
    import { createConsul } from ${JSON.stringify(new URL('../../mesh/consul.ts', import.meta.url).href)};
    const clients = [${JSON.stringify(url)}, 'http://127.0.0.1:1'].map(url => createConsul({ url }));
    const done = new Promise(resolve => clients[1].watchServices(() => {}, resolve));
    await new Promise(resolve => clients[0].watchInstances('x', resolve, console.error));
    await clients[0].putDefinition('x', 1);
    await done;
    clients[0].deregister('x').catch(() => {});
    for (const client of clients) client.close();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const [code] = await once(child, 'exit', { signal: AbortSignal.timeout(15_000) });
  assert.equal(code, 0);
});

const JSON_TYPE = { 'content-type': 'application/json' };

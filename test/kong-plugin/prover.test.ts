import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createServer, get, type RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fastify } from 'fastify';
import { createProver, type Prover } from '../../kong-plugin/prover.ts';
import type { Instance } from '../../mesh/consul.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { addProofRoute } from '../../workers/proof-route.ts';
import { until } from '../until.ts';

const ROOT = randomBytes(32);
const DEADLINE_MS = 20_000;
const HAS_IPV6 = Object.values(networkInterfaces()).some(list =>
  list?.some(({ address }) => address === '::1'),
);

interface GenuineOptions {
  service?: string;
  keys?: Buffer[];
  id?: string;
  host?: string;
  port?: number;
}

test('an instance that holds its service’s key is proven', async t => {
  const worker = await startGenuine(t);
  const { prover, changes } = start(t);
  assert.equal(prover.isProven(worker), false);
  prover.update([worker]);
  assert.match(
    prover.reason(worker),
    /^has not proven that it belongs to this mesh: it has not been asked yet$/,
  );
  await proven(prover, worker);
  assert.deepEqual([prover.reason(worker), changes()], ['', 1]);
  // As Consul's next answer brings it.
  assert.equal(prover.isProven(structuredClone(worker)), true);
});

test('a fake that somebody wrote into Consul gets no call, and is asked again and again', async t => {
  let asked = 0;
  const fake = await startFake(t, (_request, response) => {
    asked += 1;
    response.end(
      JSON.stringify({
        instance: 'fake',
        address: '127.0.0.1',
        port: 1,
        macs: [randomBytes(32).toString('base64url')],
      }),
    );
  });
  const { prover, changes, lines } = start(t, { retryMs: 20 });
  prover.update([fake]);
  await until(() => asked >= 4);
  assert.equal(prover.isProven(fake), false);
  assert.match(prover.reason(fake), /another instance answers at its address/);
  assert.equal(changes(), 0);
  assert.equal(lines.length, 1, 'told once, not with each attempt');
});

test('a fake that passes the nonce on to a genuine instance gets nothing for it', async t => {
  const genuine = await startGenuine(t);
  let relayed = 0;
  const relay =
    (change: (answer: Record<string, unknown>, own: AddressInfo) => void): RequestListener =>
    (request, response) => {
      relayed += 1;
      const own = request.socket.address() as AddressInfo;
      get({ host: '127.0.0.1', port: genuine.port, path: request.url ?? '' }, async answer => {
        const body = JSON.parse(Buffer.concat(await answer.toArray()).toString());
        change(body, own);
        response.end(JSON.stringify(body));
      });
    };
  const plain = await startFake(
    t,
    relay(() => {}),
  );
  const lying = await startFake(
    t,
    relay((answer, { port }) => Object.assign(answer, { port })),
  );
  const fakes: Instance[] = [
    { ...plain, id: 'fake-of-its-own-name' },
    { ...plain, id: genuine.id, node: 'other' },
    { ...lying, id: genuine.id },
    // The genuine place under another name: a second share of its calls.
    { ...genuine, id: 'fake-of-another-name' },
  ];
  const { prover } = start(t);
  prover.update([...fakes, genuine]);
  await proven(prover, genuine);
  await until(() => fakes.every(fake => !/not been asked/.test(prover.reason(fake))));
  assert.ok(relayed >= 3);
  for (const fake of fakes) assert.equal(prover.isProven(fake), false, prover.reason(fake));
  assert.match(prover.reason({ ...plain, id: genuine.id }), /does not advertise/);
  assert.match(prover.reason({ ...lying, id: genuine.id }), /wrong key/);
});

test('a worker that was taken over gives away its own service and no other', async t => {
  const files = await startGenuine(t, { service: 'files' });
  const posing = { ...files, service: 'mcp-github', meta: { ...files.meta, mcp_server: 'github' } };
  const { prover } = start(t);
  prover.update([files, posing]);
  await proven(prover, files);
  await until(() => /wrong key: .*"github"/.test(prover.reason(posing)));
  assert.equal(prover.isProven(posing), false);
});

test('an instance counts for the Consul service that it stands in, and is not even asked for another', async t => {
  const worker = await startGenuine(t);
  const bad: [Partial<Instance>, RegExp][] = [
    [{ service: 'mcp-files' }, /mcp_server is "github", which is not the Consul service/],
    [{ meta: {} }, /names no service/],
    [{ meta: { mcp_server: 'GitHub' } }, /names no service/],
    [{ meta: { mcp_server: '__proto__' } }, /names no service/],
  ];
  const { prover } = start(t);
  for (const [change, wanted] of bad) {
    const instance = { ...worker, ...change };
    prover.update([worker, instance]);
    await prover.ready(DEADLINE_MS);
    await proven(prover, worker);
    assert.equal(prover.isProven(instance), false);
    assert.match(prover.reason(instance), wanted);
  }
});

test('a service may have a Consul name of its own, also when that becomes known later', async t => {
  const worker = { ...(await startGenuine(t)), service: 'code-hosting' };
  const names = new Map<string, string>();
  const { prover } = start(t, { consulService: name => names.get(name) ?? `mcp-${name}` });
  prover.update([worker]);
  assert.match(prover.reason(worker), /not the Consul service/);
  names.set('github', 'code-hosting');
  prover.update([worker]);
  await proven(prover, worker);
  names.clear();
  prover.update([worker]);
  assert.equal(prover.isProven(worker), false);
});

test('root keys are rotated in either order', async t => {
  const fresh = randomBytes(32);
  const of = (...roots: Buffer[]) => roots.map(root => deriveServiceKey(root, 'github'));
  const both = await startGenuine(t, { keys: of(fresh, ROOT), id: 'both' });
  const old = await startGenuine(t, { keys: of(ROOT), id: 'old' });
  const instances = [both, old];
  for (const [rootKeys, expected] of [
    [[ROOT], [true, true]],
    [
      [fresh, ROOT],
      [true, true],
    ],
    [[fresh], [true, false]],
  ] as const) {
    const { prover } = start(t, { rootKeys });
    prover.update(instances);
    await prover.ready(DEADLINE_MS);
    assert.deepEqual(
      instances.map(instance => prover.isProven(instance)),
      expected,
    );
  }
});

test('whatever answers, it is bounded, and does not keep a genuine instance waiting', async t => {
  let followed = 0;
  const elsewhere = await startFake(t, (_request, response) => {
    followed += 1;
    response.end('{}');
  });
  const drip: RequestListener = (_request, response) => {
    const timer = setInterval(() => response.write(' '), 20);
    response.on('close', () => clearInterval(timer));
  };
  const flood: RequestListener = (_request, response) => {
    const more = () => {
      while (!response.destroyed && response.write('x'.repeat(65_536)));
    };
    response.on('drain', more);
    more();
  };
  const kinds: [string, Promise<Instance>, RegExp][] = [
    ['never answers', startFake(t, () => {}), /no whole answer within 300 ms/],
    ['drips', startFake(t, drip), /no whole answer within 300 ms/],
    ['floods', startFake(t, flood), /its answer is too large/],
    [
      'redirects',
      startFake(t, (_q, r) => r.writeHead(302, { location: `http://127.0.0.1:${elsewhere.port}/` }).end()),
      /status 302/,
    ],
    ['is another program', startFake(t, (_q, r) => r.writeHead(404).end('no')), /status 404/],
    ['is empty', startFake(t, (_q, r) => r.writeHead(204).end()), /status 204/],
    ['is no JSON', startFake(t, (_q, r) => r.end('<html>')), /its answer is no proof/],
    [
      'is cut',
      startFake(t, (_q, r) => r.writeHead(200, { 'content-length': 99 }).write('{', () => r.destroy())),
      /closed before it answered/,
    ],
    ['hangs up', startTcp(t, socket => socket.destroy()), /closed before it answered/],
    ['ends', startTcp(t, socket => socket.end()), /closed before it answered/],
    ['is no HTTP', startTcp(t, socket => socket.write('SSH-2.0-OpenSSH_9.9\r\n')), /no HTTP answer/],
    [
      'upgrades',
      startTcp(t, socket =>
        socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'),
      ),
      /closed before it answered|no whole answer/,
    ],
    [
      'has huge headers',
      startTcp(t, socket => socket.write(`HTTP/1.1 200 OK\r\nx: ${'x'.repeat(1e6)}\r\n\r\n`)),
      /no HTTP answer/,
    ],
    ['says 100 for ever', startTcp(t, chatter), /no whole answer within 300 ms/],
  ];
  const fakes = await Promise.all(kinds.map(async ([id, fake]) => ({ ...(await fake), id })));
  const genuine = await startGenuine(t);
  const { prover } = start(t, { fetchTimeoutMs: 300 });
  prover.update([...fakes, genuine]);
  await proven(prover, genuine);
  await prover.ready(DEADLINE_MS);
  for (const [at, [id, , wanted]] of kinds.entries()) {
    assert.match(prover.reason(fakes[at] ?? genuine), wanted, id);
    assert.equal(prover.isProven(fakes[at] ?? genuine), false);
  }
  assert.equal(followed, 0);
});

test('what cannot be asked at all is told so, and nothing else is asked instead', async t => {
  const worker = await startGenuine(t);
  const { prover } = start(t);
  const bad: [Partial<Instance>, RegExp][] = [
    [{ port: 0 }, /without an address or a port/],
    [{ port: 70_000 }, /without an address or a port/],
    [{ address: '' }, /without an address or a port/],
    [{ address: '127.0.0.1:80@x' }, /: /],
    [{ address: 'a b\r\nx: y' }, /: /],
  ];
  const instances = bad.map(([change]) => ({ ...worker, ...change }));
  prover.update(instances);
  await prover.ready(DEADLINE_MS);
  for (const [at, instance] of instances.entries()) {
    assert.equal(prover.isProven(instance), false);
    assert.match(prover.reason(instance), bad[at]?.[1] ?? /^$/);
  }
});

test('an instance with another address, or another start, is unproven until it has proven itself anew', async t => {
  const first = await startGenuine(t);
  const { prover } = start(t);
  prover.update([first]);
  await proven(prover, first);
  const restarted = { ...first, meta: { ...first.meta, started_at: 'later' } };
  prover.update([restarted]);
  assert.equal(prover.isProven(restarted), false);
  await proven(prover, restarted);
  const fake = await startFake(t, (_request, response) => response.end('{}'));
  const moved = { ...restarted, port: fake.port };
  prover.update([moved]);
  assert.deepEqual([prover.isProven(moved), prover.isProven(restarted)], [false, false]);
  await until(() => /no proof/.test(prover.reason(moved)));
  const second = await startGenuine(t);
  prover.update([second]);
  assert.equal(prover.isProven(second), false);
  await proven(prover, second);
});

test('other changes in Consul cost no new proof', async t => {
  const worker = await startGenuine(t);
  const { prover, changes } = start(t);
  prover.update([worker]);
  await proven(prover, worker);
  prover.update([{ ...worker, status: 'critical', tags: ['x'], meta: { ...worker.meta, tools_hash: 'y' } }]);
  assert.equal(prover.isProven({ ...worker, reason: 'another object' }), true);
  assert.equal(changes(), 1);
});

test('a worker that comes up late is proven without a change in Consul', async t => {
  const { port } = await startFake(t, () => {}, true);
  const worker = instanceAt('127.0.0.1', port);
  const { prover, changes } = start(t);
  prover.update([worker]);
  await until(() => /connection refused/.test(prover.reason(worker)));
  assert.equal(changes(), 0);
  await startGenuine(t, { id: worker.id, port });
  await proven(prover, worker);
  assert.equal(changes(), 1);
});

test('an instance that passes its checks again is asked at once, not when its next attempt is due', async t => {
  let answer = false;
  let asked = 0;
  const worker = await startGenuine(t, {}, () => {
    asked += 1;
    return answer;
  });
  // The next attempt would be due after the deadline of this test.
  const { prover } = start(t, { retryMs: 30_000 });
  const critical = { ...worker, status: 'critical' as const };
  prover.update([critical]);
  await until(() => /status 500/.test(prover.reason(critical)));
  answer = true;
  prover.update([critical]);
  prover.update([worker]);
  await proven(prover, worker);
  assert.equal(asked, 2);
});

test('a proven instance that was away is asked when it is back: it may be another by now', async t => {
  let genuine = true;
  const worker = await startGenuine(t, {}, () => genuine);
  const { prover } = start(t);
  prover.update([worker]);
  await proven(prover, worker);
  prover.update([{ ...worker, status: 'critical' }]);
  genuine = false;
  prover.update([worker]);
  await until(() => !prover.isProven(worker));
});

test('a proof is asked for again: another program at its place gets nothing from then on', async t => {
  let genuine = true;
  const worker = await startGenuine(t, {}, () => genuine);
  const { prover, changes, lines } = start(t, { reproveMs: 50, retryMs: 20 });
  prover.update([worker]);
  await proven(prover, worker);
  genuine = false;
  await until(() => !prover.isProven(worker));
  assert.equal(changes(), 2);
  assert.match(lines.at(-1) ?? '', /gets no calls: it has not proven .*status 500/);
  genuine = true;
  await proven(prover, worker);
  assert.deepEqual([changes(), /has proven itself$/.test(lines.at(-1) ?? '')], [3, true]);
});

test('a proven instance that is merely slow keeps its place for a while, and no longer', async t => {
  for (const [graceMs, kept] of [
    [60_000, true],
    [-60_000, false],
  ] as const) {
    let slow = false;
    const worker = await startGenuine(t, {}, () => (slow ? new Promise(() => {}) : true));
    const { prover, lines } = start(t, { reproveMs: 50, graceMs, fetchTimeoutMs: 200 });
    prover.update([worker]);
    await proven(prover, worker);
    slow = true;
    await until(() => lines.length > 0);
    assert.equal(prover.isProven(worker), kept);
    assert.match(
      lines[0] ?? '',
      kept ? /does not prove itself again for now: no whole answer/ : /gets no calls/,
    );
  }
});

test('what left Consul is forgotten: it has to prove itself when it comes back', async t => {
  let asked = 0;
  const worker = await startGenuine(t, {}, () => {
    asked += 1;
    return true;
  });
  const { prover } = start(t);
  prover.update([worker]);
  await proven(prover, worker);
  prover.update([]);
  assert.equal(prover.isProven(worker), false);
  prover.update([worker]);
  assert.equal(prover.isProven(worker), false);
  await proven(prover, worker);
  assert.equal(asked, 2);
});

test('one id in two places is two instances', async t => {
  const genuine = await startGenuine(t);
  const fake = { ...(await startFake(t, (_q, r) => r.end('{}'))), id: genuine.id, node: 'other' };
  const { prover } = start(t);
  for (const instances of [
    [genuine, fake],
    [fake, genuine],
    [genuine, genuine, fake],
  ]) {
    prover.update(instances);
    await prover.ready(DEADLINE_MS);
    await proven(prover, genuine);
    assert.equal(prover.isProven(fake), false);
  }
});

test('no more than 16 are asked at a time, and what is new goes before what failed', async t => {
  let open = 0;
  const hang = await startTcp(t, socket => {
    open += 1;
    socket.on('close', () => {
      open -= 1;
    });
  });
  const crowd = Array.from({ length: 60 }, (_, i) => ({ ...hang, id: `crowd-${i}` }));
  const { prover: patient } = start(t, { fetchTimeoutMs: 60_000 });
  patient.update(crowd);
  await until(() => open >= 16);
  await pause(200);
  assert.equal(open, 16);
  patient.close();
  const { prover } = start(t, { fetchTimeoutMs: 100 });
  prover.update(crowd);
  await prover.ready(DEADLINE_MS);
  assert.ok(crowd.every(instance => /no whole answer/.test(prover.reason(instance))));
  const genuine = await startGenuine(t);
  prover.update([...crowd, genuine]);
  await proven(prover, genuine);
});

test('IPv6 addresses, in any spelling', { skip: !HAS_IPV6 }, async t => {
  const worker = await startGenuine(t, { host: '::1' });
  const spelled = { ...worker, address: '0:0:0:0:0:0:0:1' };
  const { prover } = start(t);
  prover.update([worker, spelled]);
  await proven(prover, worker);
  await proven(prover, spelled);
});

test('without a root key nobody has to prove anything', async t => {
  const { prover } = start(t, { rootKeys: [] });
  const worker = instanceAt('127.0.0.1', 9);
  assert.equal(prover.isProven(worker), true);
  prover.update([worker]);
  await prover.ready(DEADLINE_MS);
  assert.deepEqual([prover.isProven(worker), prover.reason(worker)], [true, '']);
});

test('the first calls wait until everybody was asked once, and later ones for nothing', async t => {
  const worker = await startGenuine(t);
  const { prover } = start(t);
  prover.update([worker]);
  await prover.ready(DEADLINE_MS);
  assert.equal(prover.isProven(worker), true);
  const silent = await startFake(t, () => {});
  prover.update([worker, silent]);
  await prover.ready(DEADLINE_MS);
  assert.match(prover.reason(silent), /not been asked yet/);
  const { prover: hurried } = start(t);
  hurried.update([silent]);
  await hurried.ready(10);
  assert.match(hurried.reason(silent), /not been asked yet/);
});

test('nobody waits for what has left Consul', async t => {
  const silent = await startFake(t, () => {});
  const { prover } = start(t, { fetchTimeoutMs: 60_000 });
  prover.update([silent]);
  const ready = prover.ready(60_000);
  prover.update([]);
  await ready;
});

test('an id with line feeds makes one line of the log', async t => {
  const fake = await startFake(t, (_request, response) => response.end('{}'));
  const { prover, lines } = start(t);
  prover.update([{ ...fake, id: 'a\n"b" has proven itself' }]);
  await until(() => lines.length > 0);
  assert.match(lines[0] ?? '', /^"a\\n\\"b\\" has proven itself" gets no calls: it has not proven that .*$/);
});

test('closed, it asks nobody, changes nothing and holds no connection', async t => {
  let open = 0;
  const silent = await startTcp(t, socket => {
    open += 1;
    socket.on('close', () => {
      open -= 1;
    });
  });
  const { prover, changes, lines } = start(t, { fetchTimeoutMs: 60_000 });
  prover.update([silent]);
  await until(() => open === 1);
  prover.close();
  await until(() => open === 0);
  assert.deepEqual([changes(), lines], [0, []]);
});

function start(t: TestContext, options: Partial<Parameters<typeof createProver>[0]> = {}) {
  let changes = 0;
  const lines: string[] = [];
  const prover = createProver({
    rootKeys: [ROOT],
    onChange: () => {
      changes += 1;
    },
    log: text => lines.push(text),
    ...options,
  });
  t.after(() => prover.close());
  return { prover, lines, changes: () => changes };
}

/** An HTTP server with the worker's own route. `admits` stands before it: false = 500. */
async function startGenuine(
  t: TestContext,
  {
    service = 'github',
    keys = [deriveServiceKey(ROOT, service)],
    id,
    host = '127.0.0.1',
    port = 0,
  }: GenuineOptions = {},
  admits: () => boolean | Promise<boolean> = () => true,
): Promise<Instance> {
  const app = fastify({ forceCloseConnections: true });
  app.addHook('onRequest', async () => {
    if (!(await admits())) throw new Error('not now');
  });
  const listening = () => (app.server.address() as AddressInfo).port;
  const instanceId = () => id ?? `mcp-${service}-${listening()}`;
  addProofRoute(app, { service, keys, instanceId, address: () => host, port: listening });
  t.after(() => app.close());
  await app.listen({ host, port });
  return { ...instanceAt(host, listening(), service), id: instanceId() };
}

/** A server of somebody who wrote its address into Consul; `gone`: only its port is left. */
async function startFake(t: TestContext, answer: RequestListener, gone = false): Promise<Instance> {
  const server = createServer(answer);
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  if (gone) close();
  else t.after(close);
  return instanceAt('127.0.0.1', port);
}

async function startTcp(t: TestContext, serve: (socket: Socket) => void): Promise<Instance> {
  const sockets = new Set<Socket>();
  const server = createTcpServer(socket => {
    sockets.add(socket.on('error', () => {}).resume());
    serve(socket);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return instanceAt('127.0.0.1', (server.address() as AddressInfo).port);
}

function chatter(socket: Socket): void {
  const timer = setInterval(() => socket.write('HTTP/1.1 100 Continue\r\n\r\n'), 10);
  socket.on('close', () => clearInterval(timer));
}

function instanceAt(address: string, port: number, service = 'github'): Instance {
  return {
    id: `mcp-${service}-${port}`,
    service: `mcp-${service}`,
    node: 'node',
    address,
    port,
    tags: ['mcp'],
    meta: { mcp_server: service, started_at: '2026-10-01T00:00:00Z' },
    weights: { passing: 1, warning: 1 },
    status: 'passing',
    reason: '',
  };
}

async function proven(prover: Prover, instance: Instance): Promise<void> {
  await until(
    `proof of ${instance.id}`,
    () => prover.isProven(instance),
    () => prover.reason(instance),
  );
}

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { decodeMultiStream, encode } from '@msgpack/msgpack';
import { until } from '../until.ts';

const SERVER = fileURLToPath(new URL('../../kong-plugin/server.cjs', import.meta.url));
const DEADLINE_MS = 15_000;

/** Each phase is one behaviour; what it writes to stderr tells the test how far it came. */
const PLUGIN = `
  class Plugin {
    async access(kong) {
      const script = await kong.ctx.shared.get('script');
      if (script === 'exit') { kong.response.exit(403, 'no'); return; }
      if (script === 'error') { kong.response.error(500); return; }
      if (script === 'throw') throw new Error('thrown in access');
      if (script === 'wait') { await new Promise(resolve => setTimeout(resolve, 30)); console.error('waited'); }
      if (script === 'big') await kong.ctx.shared.set('big', 10n);
      try { await kong.ctx.shared.set('answer', 'of ' + script); } finally { console.error('access ended: ' + script); }
    }
    log() {}
    rewrite() { return new Promise(() => {}); }
    certificate(kong) { throw new TypeError('thrown without a PDK call'); }
  }
  module.exports = { Plugin, Name: 'mcp-mesh', Priority: 900, Version: '1.0' };
`;

interface Reply {
  id: unknown;
  error: unknown;
  result: unknown;
}

interface Running {
  child: ChildProcess;
  socket: string;
  stderr(): string;
  connect(): Promise<Rpc>;
}

test('a phase runs step by step, and frees its event with its end', async t => {
  const rpc = await startedRpc(t);
  const first = await rpc.ok('HandleEvent', { InstanceId: 0, EventName: 'access' });
  assert.deepEqual(first, { EventId: 0, Data: { Method: 'kong.ctx.shared.get', Args: ['script'] } });
  const second = await rpc.ok('Step', { EventId: 0, Data: 'ü' });
  assert.deepEqual(second, { EventId: 0, Data: { Method: 'kong.ctx.shared.set', Args: ['answer', 'of ü'] } });
  assert.deepEqual(await rpc.ok('Step', { EventId: 0 }), { EventId: 0, Data: 'ret' });
  assert.equal(await rpc.events(), 0);
});

test('no event stays after a phase without a PDK call, after exit, error, an exception', async t => {
  const rpc = await startedRpc(t);
  for (let i = 0; i < 20; i += 1) {
    assert.equal(
      (await rpc.ok<{ Data: string }>('HandleEvent', { InstanceId: 0, EventName: 'log' })).Data,
      'ret',
    );
    for (const script of ['exit', 'error', 'throw']) await rpc.access(script);
  }
  assert.equal(await rpc.events(), 0);
});

test('a PDK call that Kong never answers is freed and rejected in the plugin; so is a phase that never ends', async t => {
  const server = await start(t, PLUGIN, ['--event-idle-ms', '100']);
  const rpc = await server.connect();
  await rpc.startInstance();
  await rpc.access('unanswered');
  void rpc.call('HandleEvent', { InstanceId: 0, EventName: 'rewrite' });
  const other = await server.connect();
  await until('sweep', async () => (await other.events()) === 0);
  await until('end of the phase', () => server.stderr().includes('access ended: unanswered'));
  assert.match((await other.call('Step', { EventId: 0 })).error as string, /event id 0 not found/);
});

test('an event that Kong is still busy with is not swept', async t => {
  const server = await start(t, PLUGIN, ['--event-idle-ms', '4000']);
  const rpc = await server.connect();
  await rpc.startInstance();
  await rpc.ok('HandleEvent', { InstanceId: 0, EventName: 'access' });
  // The sweep has come by once, at 1000 ms.
  await sleep(1300);
  assert.equal((await rpc.call('Step', { EventId: 0, Data: 'late' })).error, null);
});

test('a client that vanishes while its answer is under way harms nobody, and nothing is logged of it', async t => {
  const server = await start(t);
  const rpc = await server.connect();
  await rpc.startInstance();
  for (let i = 0; i < 20; i += 1) {
    const gone = await server.connect();
    await gone.ok('HandleEvent', { InstanceId: 0, EventName: 'access' });
    gone.write(encode([0, 9, 'plugin.Step', [{ EventId: i, Data: 'wait' }]]));
    await sleep(1);
    gone.socket.destroy();
    // Its answers meet a peer that is gone, before the server has heard of it.
    const burst = await server.connect();
    burst.write(
      Buffer.concat(Array.from({ length: 200 }, (_, id) => encode([0, id, 'plugin.GetStatus', []]))),
    );
    burst.socket.destroySoon();
  }
  await until('end of all waits', () => server.stderr().match(/waited/g)?.length === 20);
  assert.equal(await rpc.events(), 20, 'each waits for Kong, until the sweep');
  assert.doesNotMatch(server.stderr(), /error:|EPIPE|ECONNRESET/);
});

test('messages: many in one chunk, one in many chunks split anywhere', async t => {
  const server = await start(t);
  const rpc = await server.connect();
  await rpc.startInstance();
  const request = (id: number) => encode([0, id, 'plugin.GetPluginInfo', ['mcp-mesh']]);
  const replies = [rpc.reply(101), rpc.reply(102), rpc.reply(103)];
  rpc.write(Buffer.concat([request(101), request(102), request(103)]));
  assert.deepEqual(
    (await Promise.all(replies)).map(reply => reply.error),
    [null, null, null],
  );
  const bytes = Buffer.concat([request(200), encode([0, 201, 'plugin.GetStatus', []])]);
  for (let at = 1; at < bytes.length; at += 1) {
    const split = await server.connect();
    const both = [split.reply(200), split.reply(201)];
    split.write(bytes.subarray(0, at));
    await new Promise(setImmediate);
    split.write(bytes.subarray(at));
    for (const reply of await Promise.all(both)) assert.equal(reply.error, null, `split at ${at}`);
    split.socket.destroy();
  }
  const slow = await server.connect();
  const reply = slow.reply(200);
  for (const byte of request(200)) {
    slow.write(Buffer.of(byte));
    await new Promise(setImmediate);
  }
  assert.equal((await reply).error, null);
});

test('garbage closes its own connection, with a line in the log', async t => {
  const server = await start(t);
  const healthy = await server.connect();
  const garbage = [
    Buffer.of(0xc1),
    Buffer.of(0xdb, 0xff, 0xff, 0xff, 0xff),
    Buffer.of(0xdd, 0xff, 0xff, 0xff, 0xff),
  ];
  for (const bytes of garbage) {
    const bad = await server.connect();
    const closed = once(bad.socket, 'close');
    bad.write(bytes);
    await closed;
  }
  const told = () => server.stderr().match(/it sent no MessagePack-RPC/g)?.length === garbage.length;
  await until('line for each', told);
  assert.equal(await healthy.events(), 0);
  assert.equal(server.child.exitCode, null);
});

for (const message of ['GET / HTTP/1.1\r\n\r\n', encode(5), encode({ a: 1 }), encode(null)]) {
  test(`valid MessagePack that is no message is answered by an error and ends: ${Buffer.from(message).toString('hex')}`, async t => {
    const server = await start(t);
    const rpc = await server.connect();
    const reply = rpc.reply(null);
    const closed = once(rpc.socket, 'close');
    rpc.write(message);
    assert.match((await reply).error as string, /malformed request/);
    await closed;
    assert.equal(await (await server.connect()).events(), 0);
  });
}

test('malformed requests and everything that is no RPC method: an error answer, and the server goes on', async t => {
  const server = await start(t);
  const rpc = await server.connect();
  await rpc.startInstance();
  const notMethods = [
    'constructor',
    'close',
    'loadPlugins',
    'clearExpiredPlugins',
    'step',
    'sweep',
    'toString',
  ];
  notMethods.push('__proto__', 'hasOwnProperty', 'SetPluginDir', 'getLogger', 'Error', 'events', '');
  const requests: [unknown, RegExp][] = [
    ...notMethods.map((name): [unknown, RegExp] => [[0, 7, `plugin.${name}`, [{}]], /not implemented/]),
    [[0, 7, 'kong.HandleEvent', [{}]], /not implemented/],
    [[0, 7, 'HandleEvent', [{}]], /not implemented/],
    [[0, 7, 5, []], /not implemented/],
    [[0, 7, ['plugin.GetStatus'], []], /not implemented/],
    [[0, 7, 'plugin.GetStatus'], /malformed/],
    [[0, 7, 'plugin.GetStatus', {}], /malformed/],
    [[1, 7, null, null], /malformed/],
    [[2, 7, 'plugin.GetStatus', []], /malformed/],
    [[0, 7, 'plugin.HandleEvent', []], /./],
    [[0, 7, 'plugin.HandleEvent', [null]], /./],
    [[0, 7, 'plugin.HandleEvent', [5]], /^no plugin instance/],
    [[0, 7, 'plugin.HandleEvent', [{ InstanceId: '__proto__', EventName: 'access' }]], /^no plugin instance/],
    [[0, 7, 'plugin.HandleEvent', [{ InstanceId: 0, EventName: 'constructor' }]], /no phase constructor/],
    [[0, 7, 'plugin.HandleEvent', [{ InstanceId: 0, EventName: 'preread' }]], /no phase preread/],
    [[0, 7, 'plugin.Step', []], /./],
    [[0, 7, 'plugin.Step', [{ EventId: 12345 }]], /event id 12345 not found/],
    [[0, 7, 'plugin.StartInstance', [{}]], /./],
    [[0, 7, 'plugin.StartInstance', [{ Name: 'mcp-mesh', Config: '{' }]], /./],
    [[0, 7, 'plugin.StartInstance', [{ Name: '__proto__', Config: '{}' }]], /./],
    [[0, 7, 'plugin.GetPluginInfo', ['constructor']], /./],
    [[0, 7, 'plugin.CloseInstance', [99]], /^no plugin instance/],
    [[0, 7, 'plugin.InstanceStatus', [99]], /^no plugin instance/],
  ];
  for (const [request, error] of requests) {
    const reply = rpc.reply(7);
    rpc.write(encode(request));
    assert.match(String((await reply).error), error, JSON.stringify(request));
  }
  for (const request of [[], [0], [0, 'x', 'plugin.GetStatus', []], [0, 1.5, 'plugin.GetStatus', []]]) {
    const reply = rpc.reply(null);
    rpc.write(encode(request));
    assert.match(String((await reply).error), /malformed/, JSON.stringify(request));
  }
  assert.equal(await rpc.events(), 0);
});

test('a PDK argument that MessagePack cannot carry is an error answer', async t => {
  const rpc = await startedRpc(t);
  await rpc.ok('HandleEvent', { InstanceId: 0, EventName: 'access' });
  assert.match(String((await rpc.call('Step', { EventId: 0, Data: 'big' })).error), /bigint|unrecognized/i);
  assert.equal((await rpc.call('GetStatus')).error, null);
});

test('an exception in a phase ends the phase, with its stack in the log', async t => {
  const server = await start(t);
  const rpc = await server.connect();
  await rpc.startInstance();
  const answer = await rpc.ok<{ Data: string }>('HandleEvent', { InstanceId: 0, EventName: 'certificate' });
  assert.equal(answer.Data, 'ret');
  // The log comes by another pipe than the answer, and may come after it.
  const told = /certificate phase: TypeError: thrown without a PDK call\n\s+at /;
  await until('the fault in the log', () => told.test(server.stderr()));
  assert.equal(await rpc.events(), 0);
});

test('instances stay however long nothing is heard of them; CloseInstance frees', async t => {
  // kong-pdk forgets an instance after a minute without a phase: here the clock jumps by two.
  const server = await start(
    t,
    `${PLUGIN}\nconst now = Date.now; setTimeout(() => { Date.now = () => now() + 120_000; }, 200);`,
  );
  const rpc = await server.connect();
  await rpc.startInstance();
  await sleep(500);
  assert.equal(
    (await rpc.ok<{ Data: string }>('HandleEvent', { InstanceId: 0, EventName: 'log' })).Data,
    'ret',
  );
  await rpc.ok('CloseInstance', 0);
  const gone = await rpc.call('HandleEvent', { InstanceId: 0, EventName: 'log' });
  assert.match(gone.error as string, /^no plugin instance/);
  assert.deepEqual((await rpc.ok<{ Instances: number }>('GetStatus')).Instances, 0);
});

test('the dump is JSON and nothing else, whatever the plugin prints; timers do not hold it up', t => {
  const noise =
    'console.log("a"); process.stdout.write("b"); console.info("c"); setInterval(() => {}, 1000);';
  const { stdout, stderr, status } = dump(
    pluginFolder(t, { 'mcp-mesh.cjs': noise + PLUGIN, 'mcp-mesh.cjs.map': '{}' }),
  );
  assert.equal(status, 0, stderr);
  const [info, ...others] = JSON.parse(stdout);
  assert.deepEqual(others, []);
  assert.deepEqual([info.Name, info.Priority, info.Version], ['mcp-mesh', 900, '1.0']);
  assert.deepEqual(info.Phases.toSorted(), ['access', 'certificate', 'log', 'rewrite']);
  assert.match(stderr, /a\nbc\n/);
});

test('ts-node and TypeScript are never loaded', t => {
  const version =
    'Version: Object.keys(require.cache).filter(file => /ts-node|typescript/.test(file)).join() || "none"';
  const folder = pluginFolder(t, { 'mcp-mesh.cjs': PLUGIN.replace("Version: '1.0'", version) });
  assert.equal(JSON.parse(dump(folder).stdout)[0].Version, 'none');
});

test('what cannot be loaded is told on stderr, with exit code 1 and an empty stdout', t => {
  const cases: [Record<string, string>, RegExp][] = [
    [
      { 'mcp-mesh.cjs': 'throw new Error("at import")' },
      /cannot load plugin .*mcp-mesh\.cjs: Error: at import/,
    ],
    [{ 'mcp-mesh.cjs': 'syntax error' }, /mcp-mesh\.cjs/],
    [{ 'mcp-mesh.cjs': 'exports.x = 1' }, /cannot load plugin/],
    [{ 'mcp-mesh.cjs': PLUGIN, 'helper.js': '' }, /exactly one plugin file.*helper\.js/],
    [{ 'notes.md': '' }, /found none/],
  ];
  for (const [files, message] of cases) {
    const { stdout, stderr, status } = dump(pluginFolder(t, files));
    assert.deepEqual([status, stdout], [1, ''], JSON.stringify(files));
    assert.match(stderr, message);
  }
  assert.match(dump('relative').stderr, /absolute path/);
  assert.match(dump('/no/such/folder').stderr, /ENOENT/);
  assert.match(
    spawnSync(process.execPath, [SERVER, '--unknown'], { encoding: 'utf8', timeout: DEADLINE_MS }).stderr,
    /--unknown/,
  );
});

test('SIGTERM removes the socket and exits 0, also with connections open', async t => {
  const server = await start(t);
  await (await server.connect()).startInstance();
  server.child.kill('SIGTERM');
  const [code] = await once(server.child, 'exit');
  assert.equal(code, 0);
  assert.equal(existsSync(server.socket), false);
});

test('SIGTERM lets the plugin send what it has gathered, and exits 0 when that fails or never ends', async t => {
  for (const [close, told] of [
    ['await new Promise(resolve => setTimeout(resolve, 50)); console.error("closed")', /closed/],
    ['console.error("fails"); throw new Error("thrown in close")', /fails/],
    ['console.error("hangs"); setInterval(() => {}, 1000); await new Promise(() => {})', /hangs/],
  ] as const) {
    const server = await start(t, `${PLUGIN}\nmodule.exports.close = async () => { ${close} };`);
    await (await server.connect()).startInstance();
    server.child.kill('SIGTERM');
    const [code] = await once(server.child, 'close');
    assert.equal(code, 0, server.stderr());
    assert.match(server.stderr(), told);
  }
});

test('a stale socket is replaced; a file that is no socket is not', async t => {
  const first = await start(t);
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  assert.ok(existsSync(first.socket));
  const second = await start(t, PLUGIN, [], first.socket);
  assert.equal(await (await second.connect()).events(), 0);
  const folder = pluginFolder(t, { 'mcp-mesh.cjs': PLUGIN });
  writeFileSync(join(folder, 'precious.json'), 'data');
  const args = ['--plugins-directory', folder, '--kong-prefix', folder, '--sock-name', 'precious.json'];
  const refused = spawnSync(process.execPath, [SERVER, ...args], { encoding: 'utf8', timeout: DEADLINE_MS });
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /is no socket/);
  assert.ok(existsSync(join(folder, 'precious.json')));
});

test('--exit-with-parent ends it with its stdin, and only that', async t => {
  const kept = await start(t);
  kept.child.stdin?.end();
  const bound = await start(t, PLUGIN, ['--exit-with-parent']);
  bound.child.stdin?.end();
  const [code] = await once(bound.child, 'exit');
  assert.equal(code, 0);
  assert.equal(await (await kept.connect()).events(), 0);
});

test('an older Node is refused with the reason', t => {
  const path = (process.env.PATH ?? '').split(':').filter(part => !part.includes('node_modules'));
  const older = path
    .map(part => join(part, 'node'))
    .find(
      file => existsSync(file) && Number(execFileSync(file, ['-p', 'parseInt(process.versions.node)'])) < 24,
    );
  if (older === undefined) return t.skip('this machine has no Node below 24');
  const { stderr, status } = spawnSync(older, [SERVER, '--dump-all-plugins'], {
    encoding: 'utf8',
    timeout: DEADLINE_MS,
  });
  assert.equal(status, 1);
  assert.match(stderr, /Node 24 or newer is needed/);
});

async function startedRpc(t: TestContext): Promise<Rpc> {
  const rpc = await (await start(t)).connect();
  await rpc.startInstance();
  return rpc;
}

async function start(
  t: TestContext,
  plugin = PLUGIN,
  args: string[] = [],
  socket?: string,
): Promise<Running> {
  const folder = pluginFolder(t, { 'mcp-mesh.cjs': plugin });
  const path = socket ?? join(mkdirIn(folder, '.run'), 'mesh.sock');
  const place = ['--kong-prefix', join(path, '..'), '--sock-name', 'mesh.sock'];
  const child = spawn(process.execPath, [SERVER, '--plugins-directory', folder, ...place, ...args]);
  let stderr = '';
  child.stderr.on('data', chunk => {
    stderr += chunk;
  });
  t.after(() => child.kill('SIGKILL'));
  await until('listening plugin server', () => {
    assert.equal(child.exitCode, null, stderr);
    return stderr.includes('listening on');
  });
  return {
    child,
    socket: path,
    stderr: () => stderr,
    async connect() {
      const client = connect(path);
      t.after(() => client.destroy());
      await once(client, 'connect');
      return new Rpc(client);
    },
  };
}

class Rpc {
  readonly socket: Socket;
  readonly #waiting = new Map<unknown, (reply: Reply) => void>();
  #lastId = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
    void this.#read();
  }

  write(bytes: Uint8Array | string): void {
    this.socket.write(bytes);
  }

  /** The answer to the message of this id, which the caller writes. */
  reply(id: unknown): Promise<Reply> {
    return new Promise(resolve => this.#waiting.set(id, resolve));
  }

  call(method: string, ...args: unknown[]): Promise<Reply> {
    this.#lastId += 1;
    const reply = this.reply(this.#lastId);
    this.write(encode([0, this.#lastId, `plugin.${method}`, args]));
    return reply;
  }

  async ok<T = unknown>(method: string, ...args: unknown[]): Promise<T> {
    const { error, result } = await this.call(method, ...args);
    assert.equal(error, null);
    return result as T;
  }

  startInstance(): Promise<unknown> {
    return this.ok('StartInstance', { Name: 'mcp-mesh', Config: '{}' });
  }

  /** The access phase up to its answer to the script. */
  async access(script: string): Promise<unknown> {
    const { EventId } = await this.ok<{ EventId: number }>('HandleEvent', {
      InstanceId: 0,
      EventName: 'access',
    });
    return this.ok('Step', { EventId, Data: script });
  }

  async events(): Promise<number> {
    return (await this.ok<{ Events: number }>('GetStatus')).Events;
  }

  async #read(): Promise<void> {
    try {
      for await (const message of decodeMultiStream(this.socket)) {
        const [, id, error, result] = message as unknown[];
        this.#waiting.get(id)?.({ id, error, result });
      }
    } catch {
      // The test looks at the socket itself.
    }
  }
}

function dump(folder: string): { stdout: string; stderr: string; status: number | null } {
  const args = [SERVER, '--dump-all-plugins', '--plugins-directory', folder];
  return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: DEADLINE_MS });
}

function pluginFolder(t: TestContext, files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), 'plugin-server-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

function mkdirIn(folder: string, name: string): string {
  mkdirSync(join(folder, name));
  return join(folder, name);
}

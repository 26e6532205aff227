import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createLog, setLogLevel } from '../../workers/log.ts';
import { closedPort } from '../kong/gateway-helpers.ts';
import { until } from '../until.ts';
import { SCRIPTED } from './helpers.ts';
import { connectLegacy, connectModern, untilReady } from './hostile/helpers.ts';
import { startTracedWorker } from './tracing-helpers.ts';

type Line = Record<string, unknown> & { level: number; msg: string };

const MAIN = fileURLToPath(new URL('../../workers/main.ts', import.meta.url));
const WARN = 40;

function capture(level = 'info') {
  const texts: string[] = [];
  const log = createLog({ level, base: {}, destination: { write: text => texts.push(text) } });
  return { log, texts, lines: () => texts.map(text => JSON.parse(text) as Line) };
}

test('credentials are left out, wherever in a line they stand', () => {
  const { log, texts } = capture();
  const secrets = {
    authorization: 'Bearer secret',
    'proxy-authorization': 'secret',
    'x-api-key': 'secret',
    cookie: 'secret=1',
    'x-mesh-identity': 'eyJ.secret',
    'x-consul-token': 'secret',
  };
  log.info(secrets, 'at the top');
  log.info({ headers: secrets }, 'one down');
  log.info({ request: { headers: secrets } }, 'two down');
  log.error({ err: Object.assign(new Error('failed'), { request: { headers: secrets } }) }, 'in an error');
  log.child({ headers: secrets }).info({ settings: { consul: { token: 'secret' }, redisUrl: 'secret' } });
  assert.equal(texts.length, 5);
  assert.doesNotMatch(texts.join(''), /secret[^-]/);
  assert.equal(texts.join('').match(/\[redacted\]/g)?.length, 6 * 5 + 2);
});

test('the level changes while it runs, for requests that come then', async t => {
  const { log, lines } = capture('warn');
  const worker = await startTracedWorker(t, { log });
  const calls = () => lines().filter(({ level, call_id }) => level < WARN && call_id !== undefined);
  await worker.execute({ command: 'nope' });
  assert.equal(lines().length, 0);
  setLogLevel(log, 'debug');
  assert.deepEqual(
    lines().map(({ msg, before, level }) => [msg, before, level]),
    [['log level changed', 'warn', 'debug']],
  );
  assert.equal(log.child({}).level, 'debug');
  setLogLevel(log, 'warn');
  assert.equal(lines().length, 2, 'what turns lines off is told, too');
  await worker.execute({ command: 'tell' });
  assert.equal(calls().length, 0);
  assert.throws(() => setLogLevel(log, 'loud'), /loud/);
});

test('an unknown level is refused with those that there are', () => {
  assert.throws(
    () => createLog({ level: 'loud', base: {} }),
    /^Error: MESH_LOG_LEVEL: "loud" is none of .*debug/,
  );
});

test('a fault is one line, where it is handled, with the call’s id', async t => {
  const { log, lines } = capture();
  const worker = await startTracedWorker(t, {
    log,
    service: { timeout_ms: 150, retry: { attempts: 1, base_ms: 1, max_ms: 1 } },
  });
  const wait = { name: 'wait', arguments: { ms: 60_000 } };
  const faults = () => lines().filter(({ level, call_id }) => level >= WARN && call_id !== undefined);
  const { status } = await worker.execute(
    { command: 'wait', params: wait.arguments },
    { 'x-request-id': 'call-by-rest' },
  );
  assert.equal(status, 504);
  const headers = (id: string) => ({ headers: { 'x-request-id': id } });
  const legacy = await connectLegacy(worker.url);
  await legacy.request(1, 'tools/call', wait, headers('call-by-legacy'));
  const modern = connectModern(worker.url);
  await modern.request(2, 'tools/call', wait, headers('call-by-modern'));
  assert.deepEqual(
    faults().map(({ call_id }) => call_id),
    ['call-by-rest', 'call-by-legacy', 'call-by-modern'],
  );
});

test('no secret of the mesh’s or a caller’s is printed, at any level, whatever goes wrong', async t => {
  const key = Buffer.alloc(32, 'secret-key-').toString('base64url');
  const child = await spawnWorker(t, {
    MESH_LOG_LEVEL: 'trace',
    MESH_SERVICE_KEYS: key,
    MESH_REDIS_URL: 'redis://:secret-of-redis@127.0.0.1:1',
    CONSUL_HTTP_TOKEN: 'secret-of-consul',
    CONSUL_HTTP_ADDR: '127.0.0.1:1',
    MESH_ALLOW_UNAUTHENTICATED: 'true',
  });
  const { url } = child;
  const headers = {
    'content-type': 'application/json',
    authorization: 'Bearer secret-of-caller',
    'x-api-key': 'secret-of-caller',
    cookie: 'secret-of-caller',
    'x-mesh-identity': 'secret-of-caller',
    'x-mesh-forward': 'secret-of-caller',
    'mcp-session-id': 'secret-of-caller',
  };
  for (const [path, body] of [
    ['/execute', '{"command":"echo","params":{"password":"secret-of-caller"}}'],
    ['/execute', '{"command":"crash","params":{"password":"secret-of-caller"}}'],
    ['/execute', '{"password":"secret-of-caller"'],
    ['/mcp', '{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"password":"secret-of-caller"}}'],
    ['/nope', '{}'],
  ] as const) {
    await (await fetch(`${url}${path}`, { method: 'POST', headers, body })).text();
  }
  assert.match(child.err(), /server ended/);
  assert.doesNotMatch(child.err(), /secret-of/);
  assert.ok(!child.err().includes(key));
});

test('SIGUSR2 turns debug lines on, and off again', async t => {
  const child = await spawnWorker(t, { MESH_LOG_LEVEL: 'warn' });
  assert.equal(child.lines().length, 0);
  const changes = () => child.lines().filter(({ msg }) => msg === 'log level changed');
  const crash = () =>
    fetch(`${child.url}/execute`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"command":"crash"}',
    }).then(response => response.text());
  const heard = () =>
    child.lines().filter(({ stderr }) => stderr === 'about to crash: secret-in-stderr').length;
  child.process.kill('SIGUSR2');
  await until(() => changes().length === 1);
  await crash();
  await until(() => heard() === 1);
  child.process.kill('SIGUSR2');
  await until(() => changes().length === 2);
  assert.deepEqual(
    changes().map(({ level }) => level),
    ['debug', 'warn'],
  );
  await untilReady(child.url);
  const ended = () => child.lines().filter(({ msg }) => msg.startsWith('server ended')).length;
  const before = ended();
  await crash();
  await until(() => ended() > before);
  assert.equal(heard(), 1);
});

async function spawnWorker(t: TestContext, env: Record<string, string>) {
  const port = await closedPort();
  const register = env.CONSUL_HTTP_ADDR === undefined ? ['--no-register'] : [];
  const argv = ['--port', String(port), ...register, '--', process.execPath, SCRIPTED];
  const child: ChildProcess = spawn(process.execPath, [MAIN, ...argv], {
    env: {
      PATH: process.env.PATH ?? '',
      MESH_ADVERTISE_ADDRESS: '127.0.0.1',
      MESH_DRAIN_IDLE_MS: '0',
      ...env,
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  t.after(async () => {
    if (child.exitCode !== null) return;
    child.kill();
    await once(child, 'exit');
  });
  let text = '';
  child.stderr?.on('data', chunk => {
    text += chunk;
  });
  const lines = () =>
    text
      .split('\n')
      .filter(line => line.startsWith('{') && line.endsWith('}'))
      .map(line => JSON.parse(line) as Line);
  const url = `http://127.0.0.1:${port}`;
  await until(async () => {
    const health = await fetch(`${url}/health`).catch(() => undefined);
    await health?.text();
    return health?.ok ?? false;
  });
  return { process: child, err: () => text, lines, url };
}

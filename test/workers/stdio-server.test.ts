import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { MeshError } from '../../mesh/errors.ts';
import { type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import type { Service } from '../../mesh/registry.ts';
import { type ServerState, StdioServer } from '../../workers/stdio-server.ts';
import { SCRIPTED, scriptedService, silentLog, toolCall } from './helpers.ts';

interface Seen {
  server: StdioServer;
  /** Resolves with the reason when the server next enters that state. */
  until(state: ServerState): Promise<string>;
}

function startServer(t: TestContext, service: Service, handshakeTimeoutMs = 10_000): Seen {
  const states = new EventTarget();
  const server = new StdioServer({
    service,
    log: silentLog,
    handshakeTimeoutMs,
    onState: (state, reason) => states.dispatchEvent(new CustomEvent(state, { detail: reason })),
  });
  server.start();
  t.after(() => server.stop());
  return {
    server,
    until: async state => ((await once(states as never, state)) as [CustomEvent<string>])[0].detail,
  };
}

const request = (name: string, args: object = {}) =>
  readMessage(JSON.stringify(toolCall(1, name, args))) as RpcRequest;
const call = async (server: StdioServer, name: string, args: object = {}, timeoutMs = 5000) =>
  (await server.call(request(name, args), { timeoutMs })).toString();
const contentOf = (text: string) => JSON.parse(text).result.content[0].text as string;
const fails = async (promise: Promise<unknown>): Promise<MeshError> => {
  const error = await promise.then(
    () => assert.fail('the call succeeded'),
    (fault: unknown) => fault,
  );
  assert.ok(error instanceof MeshError, String(error));
  return error;
};
const alive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

test('only allow-listed variables and the service’s own reach the server', async t => {
  const { server, until } = startServer(
    t,
    scriptedService('', { env_allow: ['PATH'], env: { MODE: '', MINE: 'yes' } }),
  );
  await until('ready');
  const env = JSON.parse(contentOf(await call(server, 'env')));
  // The last three are a child's own: an empty home in place of the withheld one, a temp folder, and its tag.
  const own = ['HOME', 'TMPDIR', 'MCP_MESH_CHILD'];
  assert.deepEqual(Object.keys(env).sort(), ['MINE', 'MODE', 'PATH', ...own].sort());
  assert.notEqual(env.HOME, process.env.HOME);
});

test('noise on stdout is skipped', async t => {
  const { server, until } = startServer(t, scriptedService('garbage'));
  await until('ready');
  assert.equal(contentOf(await call(server, 'echo', { text: 'hi' })), 'hi');
});

test('a crash fails what is in flight as possibly delivered, and the server is started again', async t => {
  const { server, until } = startServer(t, scriptedService());
  await until('ready');
  const waiting = fails(call(server, 'silent'));
  const crashed = fails(call(server, 'crash'));
  const reason = await until('down');
  assert.equal(reason, 'child exits with 7; last words: about to crash: secret-in-stderr');
  for (const error of [await waiting, await crashed]) {
    assert.deepEqual([error.code, error.delivered], ['child_crashed', 'unknown']);
    // stderr is for operators; a caller must not read it.
    assert.equal(error.message, 'child exits with 7');
  }
  const refused = await fails(call(server, 'echo'));
  assert.deepEqual([refused.code, refused.delivered], ['child_unavailable', 'no']);
  assert.ok((refused.retryAfterMs ?? 0) > 0);
  await until('ready');
  assert.equal(server.restarts, 1);
  assert.equal(contentOf(await call(server, 'echo', { text: 'back' })), 'back');
});

describe('a server that cannot start says why and is tried again', () => {
  const cases = [
    {
      desc: 'it exits at once',
      service: scriptedService('die'),
      reason: /^child exits with 3; last words: cannot open the database$/,
    },
    {
      desc: 'it never answers',
      service: scriptedService('mute'),
      handshakeTimeoutMs: 300,
      reason: /^initialize failed \(no answer within 300 ms\)$/,
    },
    {
      desc: 'the command does not exist',
      service: { ...scriptedService(), command: '/nowhere/server' },
      reason: /^child cannot be started \(command not found/,
    },
    {
      desc: 'the folder does not exist',
      service: { ...scriptedService(), cwd: '/nowhere' },
      reason: /cwd does not exist/,
    },
    {
      desc: 'it speaks something else',
      service: {
        ...scriptedService(),
        args: [
          '-e',
          'process.stdin.on("data", line => console.log(JSON.stringify({ jsonrpc: "2.0", id: JSON.parse(line).id, result: { hi: 1 } })))',
        ],
      },
      reason: /^initialize failed \(its answer to initialize lacks/,
    },
  ];
  for (const { desc, service, reason, handshakeTimeoutMs } of cases) {
    test(desc, async t => {
      const { server, until } = startServer(t, service, handshakeTimeoutMs);
      assert.match(await until('down'), reason);
      await until('starting');
      assert.match(server.reason, reason);
    });
  }
});

test('a call that takes too long is given up, cancelled at the server, and harms no other', async t => {
  const { server, until } = startServer(t, scriptedService());
  await until('ready');
  const error = await fails(call(server, 'silent', {}, 50));
  assert.deepEqual([error.code, error.delivered], ['timeout', 'unknown']);
  const { value } = await server.ask('test/cancelled', {}, { timeoutMs: 5000 });
  const { cancelled } = value.result as { cancelled: number[] };
  assert.equal(cancelled.length, 1);
  assert.equal(server.inFlight, 0);
});

test('an answer beyond line_bytes fails its call and no other', async t => {
  const limits = { ...scriptedService().limits, line_bytes: 100_000 };
  const { server, until } = startServer(t, scriptedService('', { limits }));
  await until('ready');
  const small = call(server, 'big', { bytes: 90_000 });
  // The scripted server writes its id last: the dropped line names nobody, and the call ends by its own time-out.
  const error = await fails(call(server, 'big', { bytes: 200_000 }, 300));
  assert.equal(error.code, 'timeout');
  assert.equal(contentOf(await small).length, 90_000);
});

test('stop ends the whole group: a wrapper script’s server does not outlive it', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-wrapper-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const wrapper = join(folder, 'wrapper.sh');
  writeFileSync(wrapper, `#!/bin/sh\n"${process.execPath}" "${SCRIPTED}"\n`, { mode: 0o755 });
  const { server, until } = startServer(t, { ...scriptedService(), command: wrapper, args: [] });
  await until('ready');
  const pid = Number(contentOf(await call(server, 'pid')));
  assert.notEqual(pid, server.pid);
  await server.stop();
  assert.equal(alive(pid), false);
});

test('a server that ignores stdin’s end and SIGTERM is killed', async t => {
  const stubborn = 'process.on("SIGTERM", () => {}); setInterval(() => {}, 1000); import(process.argv[1])';
  const { server, until } = startServer(t, {
    ...scriptedService(),
    args: ['-e', `process.exit = () => {}; ${stubborn}`, SCRIPTED],
  });
  await until('ready');
  const { pid } = server;
  assert.ok(pid);
  await server.stop();
  assert.equal(alive(pid), false);
});

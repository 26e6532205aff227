import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { startGateway } from '../../kong/dev/gateway.ts';
import { isAlive } from '../e2e/mesh-process.ts';
import { until } from '../until.ts';
import {
  echo,
  KONG_YML,
  PLUGIN_SERVER,
  routeTo,
  script,
  send,
  startTestGateway,
  startWorker,
} from './gateway-helpers.ts';

const GATEWAY = new URL('../../kong/dev/gateway.ts', import.meta.url).href;

test('plugin server killed: 503 while it is away, nothing passes, then it is back with a new instance', async t => {
  const { gateway, lines } = await startTestGateway(fn => t.after(fn));
  let reached = 0;
  const worker = await startWorker(
    fn => t.after(fn),
    (_call, response) => {
      reached += 1;
      response.end('ok');
    },
  );
  assert.equal((await send(gateway, { headers: routeTo([worker]) })).status, 200);
  const pid = gateway.pluginServerPid() ?? 0;
  process.kill(pid, 'SIGKILL');
  await until('death of the plugin server', () => gateway.pluginServerPid() !== pid);
  const answer = await send(gateway, { headers: { ...routeTo([worker]), 'x-mesh-decision': 'forged' } });
  assert.equal(answer.status, 503);
  assert.equal(JSON.parse(answer.text).code, 'no_decision');
  assert.equal(reached, 1);
  await until('new plugin server', () => gateway.pluginServerPid());
  for (let status = 503; status !== 200; ) {
    status = (await send(gateway, { headers: routeTo([worker]) })).status;
    assert.ok(status === 200 || status === 503, String(status));
  }
  assert.equal(reached, 2);
  assert.ok(lines.some(line => line.includes('no plugin instance')));
});

test('plugin server that hangs: the phase is skipped after its time-out, and the handoff answers 503', async t => {
  const { gateway, lines } = await startTestGateway(fn => t.after(fn), { pluginTimeoutMs: 200 });
  assert.equal((await send(gateway, { headers: script({ hang: true }) })).status, 503);
  assert.ok(lines.some(line => line.includes('timeout')));
  assert.equal((await send(gateway)).status, 200, 'the next request is not held up');
});

test("no instance yet is Kong's own 500", async t => {
  const { gateway, lines } = await startTestGateway(fn => t.after(fn), {
    env: { MESH_TEST_FAIL_INSTANCE: '1' },
  });
  const answer = await send(gateway);
  assert.equal(answer.status, 500);
  assert.equal(JSON.parse(answer.text).message, 'An unexpected error occurred');
  assert.equal(JSON.parse(answer.text).request_id, answer.headers['x-kong-request-id']);
  assert.ok(lines.some(line => line.includes('starting instance')));
});

test('a plugin server that cannot start or prints no JSON is an error of startGateway', async () => {
  const start = (command: string[]) => startGateway({ configPath: KONG_YML, pluginServer: { command } });
  await assert.rejects(start([process.execPath, '-e', 'process.exit(3)', '--']), /Command failed/);
  await assert.rejects(
    start([process.execPath, '-e', 'console.log("hello")', '--']),
    /not a plugin info table/,
  );
});

test('close ends the plugin server and removes its folder', async t => {
  const { gateway, lines } = await startTestGateway(fn => t.after(fn));
  const pid = gateway.pluginServerPid() ?? 0;
  const socket = lines.find(line => line.includes('listening on'))?.split('listening on ')[1] ?? '';
  assert.ok(existsSync(socket));
  await gateway.close();
  assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' });
  assert.equal(existsSync(socket), false);
});

test('a gateway that is killed with -9 takes the plugin server with it', async t => {
  const options = JSON.stringify({ configPath: KONG_YML, pluginServer: { command: PLUGIN_SERVER } });
  const program = `
    import { startGateway } from ${JSON.stringify(GATEWAY)};
    const gateway = await startGateway(${options});
    console.log(gateway.pluginServerPid());`;
  // What it cannot remove any more is in a folder of the test's own.
  const folder = mkdtempSync(join(tmpdir(), 'gateway-test-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TMPDIR: folder },
  });
  t.after(() => child.kill('SIGKILL'));
  const [line] = await once(createInterface(child.stdout), 'line');
  const pid = Number(line);
  process.kill(pid, 0);
  child.kill('SIGKILL');
  await until('end of the plugin server', () => !isAlive(pid));
});

test('concurrent requests share the plugin server without mixing their decisions', async t => {
  const { gateway } = await startTestGateway(fn => t.after(fn));
  const worker = await startWorker(fn => t.after(fn), echo);
  const numbers = Array.from({ length: 100 }, (_, i) => i);
  const answers = await Promise.all(
    numbers.map(n => send(gateway, { headers: routeTo([worker], { path: `/n${n}` }) })),
  );
  assert.deepEqual(
    answers.map(answer => JSON.parse(answer.text).url),
    numbers.map(n => `/n${n}`),
  );
  assert.deepEqual(new Set(gateway.pdkCalls().access), new Set([2]));
});

/** A zombie that nobody reaps is dead, too: in a container the parent of orphans may never wait for them. */

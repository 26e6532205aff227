import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { examine, type Finding, type Instruments } from '../../cli/doctor/examine.ts';
import { startConsul } from '../../kong/dev/consul.ts';
import { createConsul } from '../../mesh/consul.ts';
import type { FleetStatus, InstanceRow } from '../../workers/fleet/status.ts';
import { scripted } from '../workers/fleet/helpers.ts';
import { folderFor, mesh } from './helpers.ts';

type Reply = { status?: number; type?: string; body?: string } | 'hang';

/** A server that answers each path as told, and nothing else. */
async function serve(t: TestContext, replies: Record<string, Reply>): Promise<string> {
  const server = createServer((request, response) => {
    const reply = replies[request.url ?? ''] ?? { status: 404, type: 'text/plain', body: 'no such page' };
    if (reply === 'hang') return;
    response.writeHead(reply.status ?? 200, { 'content-type': reply.type ?? 'application/json' });
    response.end(reply.body ?? '{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function writeRegistry(t: TestContext, services: object[]): string {
  const path = join(folderFor(t), 'registry.yaml');
  writeFileSync(path, JSON.stringify({ version: 1, mcp_services: services }));
  return path;
}

function instruments(registryPath: string, more: Partial<Instruments> = {}): Instruments {
  const gateway = 'http://127.0.0.1:2';
  return {
    registryPath,
    fleet: undefined,
    consul: undefined,
    gateway,
    key: undefined,
    timeoutMs: 10_000,
    ...more,
  };
}

/** A supervisor with one instance of `echo` that is ready at the address. */
function fleetWith(address: string, fields: Partial<InstanceRow> = {}): FleetStatus {
  const row = { service: 'echo', slot: 'echo#0', id: 'mcp-echo-h-1', address, pid: null, state: 'ready' };
  const rest = { reason: '', era: 'modern', last_error: null, ...fields };
  const echo = { service: 'echo', wanted: 1, ready: 1, scaling: null, activator: null, rollout: null };
  return {
    pid: process.pid,
    started_at: '2026-01-01T00:00:00.000Z',
    registry: { path: '', error: null },
    services: [echo],
    instances: [{ ...row, ...rest } as InstanceRow],
  };
}

/** `link: text` of the one that is broken; "" when none is. */
function brokenOf(findings: Finding[]): string {
  const [first, ...more] = findings.filter(({ verdict }) => verdict.state === 'broken');
  assert.equal(more.length, 0, 'only the first one is named');
  if (first?.verdict.state !== 'broken') return '';
  assert.ok(first.verdict.cure.length > 0 && first.verdict.text.length < 5000);
  return `${first.link}: ${first.verdict.text}`;
}

describe('mesh doctor', { concurrency: 4 }, () => {
  test('a command that cannot be run is named with what is wrong about it', async t => {
    const folder = folderFor(t);
    const script = (name: string, text: string, mode: number) => {
      writeFileSync(join(folder, name), text);
      chmodSync(join(folder, name), mode);
      return join(folder, name);
    };
    const cases: [object, RegExp][] = [
      [
        { command: 'no-such-program', env: { PATH: '/nowhere' } },
        /^command: .* not found; its PATH is \/nowhere/,
      ],
      [{ command: './gone.sh', cwd: folder }, /^command: \.\/gone\.sh is not found \(.*\/gone\.sh\)/],
      [{ command: script('plain.sh', '#!/bin/sh\n', 0o644) }, /^command: .*plain\.sh may not be executed/],
      [{ command: script('dos.sh', '#!/bin/sh\r\n', 0o755) }, /^command: .*dos\.sh has Windows line ends/],
      [{ command: script('lost.sh', '#!/opt/none/sh\n', 0o755) }, /^command: .* asks for \/opt\/none\/sh/],
      [{ cwd: join(folder, 'none') }, /^command: its folder .*none does not exist/],
    ];
    for (const [fields, wanted] of cases) {
      const path = writeRegistry(t, [scripted('echo', fields)]);
      assert.match(brokenOf(await examine('echo', instruments(path))), wanted);
    }
  });

  test('a server is run for a moment: it may be well, end, or never speak', async t => {
    const modes = ['', 'die', 'mute'].map(mode => scripted(`s${mode}`, { env: { MODE: mode } }));
    const path = writeRegistry(t, modes);
    const look = (name: string, timeoutMs: number) => examine(name, instruments(path, { timeoutMs }));
    const [well, dead, mute] = await Promise.all([
      look('s', 15_000),
      look('sdie', 15_000),
      look('smute', 300),
    ]);
    assert.equal(brokenOf(well), 'gateway: http://127.0.0.1:2/api/v1/mcp/s/status: nobody listens there');
    assert.match(well[2]?.verdict.text ?? '', /^started here for a moment: .* \(legacy\)$/);
    assert.match(brokenOf(dead), /^server: child exits with 3; last words: cannot open the database/);
    assert.match(brokenOf(mute), /^server: no handshake: /);
  });

  test('a variable that is not set here is no fault while the workers run', async t => {
    const path = writeRegistry(t, [scripted('echo', { env: { TOKEN: '${DOCTOR_TEST_UNSET}' } })]);
    assert.match(
      brokenOf(await examine('echo', instruments(path))),
      /^registry: .*DOCTOR_TEST_UNSET is not set/,
    );
    const worker = await serve(t, { '/health': {} });
    const fleet = fleetWith(worker.slice('http://'.length));
    const [registry] = await examine('echo', instruments(path, { fleet }));
    assert.equal(registry?.verdict.state, 'ok');
    const parked = fleetWith('127.0.0.1:2', { state: 'parked', reason: 'child exits with 3' });
    const plain = writeRegistry(t, [scripted('echo')]);
    const findings = await examine('echo', instruments(plain, { fleet: parked }));
    assert.match(
      brokenOf(findings),
      /^server: echo#0 is parked: child exits with 3; started here for a moment, /,
    );
  });

  test('worker and Consul: what they have, and whether they answer at all', async t => {
    const path = writeRegistry(t, [scripted('echo')]);
    const sick = await serve(t, { '/health': { status: 503, body: '{"reason":"child down"}' } });
    const worker = (await serve(t, { '/health': {} })).slice('http://'.length);
    const port = Number(worker.split(':')[1]);
    const real = await startConsul();
    t.after(() => real.close());
    const client = createConsul({ url: real.url });
    t.after(() => client.close());
    const list = '/v1/health/service/mcp-echo';
    const look = async (consul: string, fleet = fleetWith(worker)) =>
      brokenOf(await examine('echo', instruments(path, { fleet, consul: { url: consul } })));
    assert.match(await look(real.url, fleetWith(sick.slice(7))), /^worker: .* answers 503: child down/);
    assert.match(await look(real.url), /^consul: mcp-echo-h-1 is ready and Consul .* does not have it/);
    const html = { type: 'text/html', body: '<html>Sign in</html>' };
    assert.match(await look(await serve(t, { [list]: html })), /^consul: .*no Consul: it answers a web page/);
    const refused = { status: 403, type: 'text/plain', body: 'Permission denied' };
    assert.match(
      await look(await serve(t, { [list]: refused })),
      /^consul: .*403 Permission denied; .*token/,
    );
    assert.match(await look(await serve(t, { [list]: 'hang' })), /^consul: .*no whole answer within 5 s/);
    const register = (at: number, url: string) =>
      client.register({
        id: 'mcp-echo-h-1',
        name: 'mcp-echo',
        address: '127.0.0.1',
        port: at,
        tags: ['mcp'],
        meta: {},
        weights: { passing: 1, warning: 1 },
        ttlSeconds: 15,
        deregisterAfterSeconds: 600,
        health: { url, intervalSeconds: 1, timeoutSeconds: 1 },
      });
    await register(1, `http://${worker}/health`);
    assert.match(
      await look(real.url),
      /^consul: mcp-echo-h-1 listens at 127.* and is registered at 127\.0\.0\.1:1$/,
    );
    await register(port, `${sick}/health`);
    assert.match(await look(real.url), /^consul: mcp-echo-h-1 is critical/);
    await client.report('mcp-echo-h-1', 'passing', '');
    assert.match(await look(real.url), /^reachable: Consul (asks 127.* and gets: .*503|has not asked)/);
  });

  test('the gateway: a stranger, one that wants a key, one with no instance, and one that is well', async t => {
    const path = writeRegistry(t, [scripted('echo')]);
    const worker = (await serve(t, { '/health': {} })).slice('http://'.length);
    const base = '/api/v1/mcp/echo';
    const look = async (replies: Record<string, Reply>, key?: string) =>
      examine('echo', instruments(path, { fleet: fleetWith(worker), gateway: await serve(t, replies), key }));
    const problem = (status: number, code: string, more: object = {}) => ({
      status,
      body: JSON.stringify({ code, detail: 'because', ...more }),
    });
    const well = { body: '{"healthy":1,"details":[{},{"reason":"x"}]}' };

    const page = { type: 'text/html', body: `<html>${'x'.repeat(100_000)}</html>` };
    assert.match(
      brokenOf(await look({ [`${base}/status`]: page })),
      /^gateway: .* no gateway .* with a web page$/,
    );
    const none = { body: '{"healthy":0,"details":[{"reason":"child exits with 3"}]}' };
    assert.match(
      brokenOf(await look({ [`${base}/status`]: none })),
      /^gateway: no instance .*child exits with 3$/,
    );
    const refusal = problem(401, 'unauthenticated');
    const closed = { [`${base}/status`]: refusal, [`${base}/execute`]: refusal };
    const anonymous = await look(closed);
    assert.equal(brokenOf(anonymous), '');
    assert.match(anonymous.at(-2)?.verdict.text ?? '', /--key/);
    assert.match(
      brokenOf(await look(closed, 'mk_wrong')),
      /^gateway: .* answers 401 unauthenticated: because/,
    );
    const failing = { [`${base}/status`]: well, [`${base}/execute`]: problem(502, 'child_crashed') };
    assert.match(brokenOf(await look(failing)), /^call: .* answers 502 child_crashed: because/);
    const toolless = problem(400, 'invalid_request', { delivered: 'yes' });
    assert.equal(brokenOf(await look({ [`${base}/status`]: well, [`${base}/execute`]: toolless })), '');
    const list = { body: '{"tools":[{},{}]}' };
    const findings = await look({ [`${base}/status`]: well, [`${base}/execute`]: list });
    assert.equal(findings.at(-1)?.verdict.text, 'tools/list has 2 tools');
  });

  test('the command line: odd names and broken files get one clear line', async t => {
    const path = writeRegistry(t, [scripted('echo')]);
    const broken = join(folderFor(t), 'broken.yaml');
    writeFileSync(broken, 'mcp_services: [{ name: a, comand: b }]');
    const [odd, near, file, timeout] = await Promise.all([
      mesh('doctor', `\u001b[31m../../${'x'.repeat(5000)}\n`, '--registry', path),
      mesh('doctor', 'ehco', '--registry', path),
      mesh('doctor', '--registry', broken),
      mesh('doctor', '--timeout', 'never', '--registry', path),
    ]);
    assert.equal(odd.code, 1);
    assert.ok(odd.out.length < 500 && !odd.out.includes('\u001b'), odd.out);
    assert.match(near.out, /^registry {2}broken: .*no service "ehco"; did you mean "echo"/);
    assert.equal(file.code, 1);
    assert.match(file.out, /broken\.yaml:1: .*comand: unknown key; did you mean "command"/);
    assert.equal(timeout.code, 2);
  });
});

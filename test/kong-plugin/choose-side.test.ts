import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { startConsul } from '../../kong/dev/consul.ts';
import { chooseOldTarget } from '../../kong-plugin/choose-side.ts';
import { createOldDeployments, isOwnSession, TrafficShare } from '../../kong-plugin/old-deployment.ts';
import { parseAccessPolicy } from '../../mesh/access-policy.ts';
import { createConsul } from '../../mesh/consul.ts';
import type { Permissions } from '../../mesh/grants.ts';
import { collectCleanUps, type FleetHarness, startFleetHarness } from '../e2e/fleet-harness.ts';
import { until } from '../until.ts';
import { INITIALIZE } from '../workers/helpers.ts';

const SERVICE = 'moved';
const SESSIONS = 200;

interface Old {
  url: string;
  asked: IncomingMessage[];
}

describe('a service with a legacy_url', () => {
  const cleanUps = collectCleanUps();
  let harness: FleetHarness;
  let old: Old;
  let consulUrl: string;
  before(async () => {
    const consul = await startConsul();
    consulUrl = consul.url;
    cleanUps.add(() => consul.close());
    old = await startOld();
    harness = await startFleetHarness(cleanUps.add, {
      consulUrl,
      allowedNetworks: ['127.0.0.0/8', '::1/128'],
      services: [{ name: SERVICE, workers: 1, registry: { legacy_url: old.url, traffic_percent: 25 } }],
    });
  });
  after(() => cleanUps.run());

  /** An old deployment that mints sessions of its own. */
  async function startOld(): Promise<Old> {
    const asked: IncomingMessage[] = [];
    const server = createServer((request, response) => {
      asked.push(request);
      request.resume();
      const session = request.headers['mcp-session-id'] ?? `old-${asked.length}`;
      response.writeHead(200, { 'content-type': 'application/json', 'mcp-session-id': session });
      response.end('{"jsonrpc":"2.0","id":0,"result":{"from":"old"}}');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanUps.add(() => server.close());
    return { url: `http://localhost:${(server.address() as AddressInfo).port}/old/mcp`, asked };
  }

  const send = (body: object, headers: Record<string, string> = {}, path = '') =>
    fetch(`${harness.urls[0]}/api/v1/mcp/${SERVICE}${path}`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        ...headers,
      },
      body: JSON.stringify(body),
    });
  const begin = async () => {
    const response = await send(INITIALIZE);
    const text = await response.text();
    const session = response.headers.get('mcp-session-id') ?? '';
    return { session, side: text.includes('"from":"old"') ? 'old' : 'mesh' };
  };
  const beginMany = async () => {
    const sides = { old: 0, mesh: 0 };
    for (let i = 0; i < SESSIONS; i += 1) sides[(await begin()).side as 'old' | 'mesh'] += 1;
    return sides;
  };
  /** As a worker does whose registry says so. */
  const setPercent = async (percent: number) => {
    const consul = createConsul({ url: consulUrl });
    const definition = await consul.getDefinition(SERVICE);
    await consul.putDefinition(SERVICE, { ...(definition as object), traffic_percent: percent });
    await until(`${percent} percent at the gateway`, async () => {
      const response = await fetch(`${harness.urls[0]}/api/v1/mcp/${SERVICE}/status`);
      return ((await response.json()) as { traffic_percent: number }).traffic_percent === percent;
    });
  };

  test('shares out new sessions: 25, 0 and 100 of 100, and back at once', async () => {
    assert.deepEqual(await beginMany(), { mesh: 50, old: 150 });
    await setPercent(0);
    assert.deepEqual(await beginMany(), { mesh: 0, old: SESSIONS });
    await setPercent(100);
    assert.deepEqual(await beginMany(), { mesh: SESSIONS, old: 0 });
    await setPercent(0);
    assert.equal((await begin()).side, 'old');
  });

  test('keeps each session on the side where it began, whatever the share is by then', async () => {
    await setPercent(25);
    const sessions = [await begin(), await begin(), await begin(), await begin()];
    assert.deepEqual(sessions.map(({ side }) => side).sort(), ['mesh', 'old', 'old', 'old']);
    for (const percent of [0, 100]) {
      await setPercent(percent);
      for (const { session, side } of sessions) {
        const text = await (
          await send({ jsonrpc: '2.0', id: 1, method: 'tools/list' }, { 'mcp-session-id': session })
        ).text();
        assert.equal(text.includes('"from":"old"') ? 'old' : 'mesh', side, text);
      }
    }
  });

  test('keeps a caller without sessions on one side, and REST in the mesh', async () => {
    const modern = () =>
      send({ jsonrpc: '2.0', id: 1, method: 'tools/list' }, { 'mcp-protocol-version': '2026-07-28' });
    const sides = new Set<boolean>();
    for (let i = 0; i < 10; i += 1) sides.add((await (await modern()).text()).includes('"from":"old"'));
    assert.equal(sides.size, 1);
    await setPercent(0);
    const seen = old.asked.length;
    const response = await send({ command: 'echo', params: { text: 'hi' } }, {}, '/execute');
    assert.deepEqual([response.status, old.asked.length], [200, seen]);
    assert.ok((await (await modern()).text()).includes('"from":"old"'));
  });

  test('sends the old deployment its path and Host, and nothing of the caller or of the mesh', async () => {
    await setPercent(0);
    const { url, asked } = old;
    await send(INITIALIZE, {
      'x-request-id': 'call-of-the-caller',
      cookie: 'a=b',
      'x-mesh-identity': 'forged',
    });
    const request = asked.at(-1);
    assert.ok(request);
    assert.deepEqual([request.url, request.headers.host], ['/old/mcp', new URL(url).host]);
    assert.equal(request.headers['x-request-id'], 'call-of-the-caller');
    const private_ = Object.keys(request.headers).filter(name =>
      /^(authorization|cookie|x-api-key|x-mesh-)/.test(name),
    );
    assert.deepEqual(private_, []);
  });

  test('keeps in the mesh who asks for it', async () => {
    await setPercent(0);
    const response = await send(INITIALIZE, { 'x-mcp-side': 'mesh' });
    assert.ok(!(await response.text()).includes('"from":"old"'));
  });

  test('says in its status how new sessions are shared out', async () => {
    await setPercent(25);
    const status = (await (await fetch(`${harness.urls[0]}/api/v1/mcp/${SERVICE}/status`)).json()) as object;
    assert.deepEqual(
      { ...status, details: undefined },
      {
        service: SERVICE,
        instances: 1,
        healthy: 1,
        strategy: 'ADAPTIVE',
        traffic_percent: 25,
        legacy: { reachable: true },
        details: undefined,
      },
    );
  });
});

describe('an old deployment', () => {
  const policyOf = (networks: string) =>
    parseAccessPolicy(`version: 1\nallowed_networks: [${networks}]\nroles: {}`, { path: 'access.yaml' })
      .policy;

  const REFUSED: { url: string; fault: RegExp; isSecure?: boolean }[] = [
    { url: 'https://old.example/mcp', fault: /protocol of its service, which is http/ },
    { url: 'http://10.0.0.1/mcp', fault: /TLS to workers/, isSecure: true },
    { url: 'http://127.0.0.1/mcp', fault: /a loopback address/ },
    { url: 'http://169.254.169.254/mcp', fault: /metadata|link-local/ },
    { url: 'http://192.0.2.1/mcp', fault: /documentation|none of the allowed_networks/ },
    { url: 'http://moved.example/mcp', fault: /"moved\.example" leads to 127\.0\.0\.1/ },
    { url: 'http://user:pw@10.0.0.1/mcp', fault: /credentials/ },
    { url: 'http://10.0.0.1/mcp?key=1', fault: /no query/ },
  ];
  for (const { url, fault, isSecure = false } of REFUSED)
    test(`at ${url} is refused: ${fault}`, async () => {
      const lines: string[] = [];
      const policy = policyOf('10.0.0.0/8');
      const old = createOldDeployments({
        policy: () => policy,
        isSecure,
        log: line => lines.push(line),
        resolve: async () => ['127.0.0.1'],
      });
      const found = await old.find(url);
      await old.find(url);
      assert.ok(found.target === undefined);
      assert.match(found.fault, fault);
      assert.equal(lines.length, 1);
    });

  test('is pinned to an address that the policy allows, and looked up once', async () => {
    let looks = 0;
    const policy = policyOf('10.0.0.0/8');
    const old = createOldDeployments({
      policy: () => policy,
      isSecure: false,
      log: assert.fail,
      resolve: async () => {
        looks += 1;
        return ['10.1.2.3'];
      },
    });
    const url = 'http://old.example:8080/mcp';
    const both = await Promise.all([old.find(url), old.find(url)]);
    const target = { address: '10.1.2.3', port: 8080, path: '/mcp', host: 'old.example:8080' };
    assert.deepEqual(both, [{ target }, { target }]);
    assert.deepEqual([await old.find(url), looks], [{ target }, 1]);
  });

  const BOUNDED: [string, Partial<Permissions>][] = [
    ['some tools only', { grants: { allow: [{ tools: ['get_*'] }], deny: [] } }],
    ['all but some tools', { grants: { allow: [{}], deny: [{ tools: ['wipe'] }] } }],
    ['a quota', { limits: { quota: { calls: 1, period: 'day' } } }],
    ['a rate by tool', { limits: { toolRates: [{ pattern: '*', calls: 1, windowS: 1 }] } }],
  ];
  for (const [what, more] of [['all', {}] as [string, Partial<Permissions>], ...BOUNDED])
    test(`gets a caller who has ${what}: ${what === 'all'}`, async () => {
      const permissions: Permissions = { grants: { allow: [{}], deny: [] }, limits: {}, ...more };
      const claims = { sub: 'a', roles: [], svc: 's', policy_version: '1', ...permissions };
      const target = { address: '10.0.0.1', port: 80, path: '/mcp', host: 'old' };
      const ask = (headers: Record<string, string>) => {
        const request = {
          method: 'POST',
          path: '',
          query: '',
          clientIp: '',
          headers,
          allHeaders: headers,
          body: '',
        };
        const definition = { legacy_url: 'http://old/mcp', traffic_percent: 0 };
        return chooseOldTarget(
          { name: 's', definition, instances: [] },
          {
            request,
            route: { to: 'worker', service: 's', path: '/mcp', rpc: true },
            authorized: { principal: 'a', permissions, claims },
            key: 'a',
          },
          {
            oldDeployments: { find: async () => ({ target }), peek: () => undefined },
            share: new TrafficShare(),
          },
        );
      };
      const foreign = ask({ 'mcp-session-id': 'old-1' });
      if (what === 'all') assert.deepEqual([await ask({}), await foreign], [target, target]);
      else {
        assert.equal(await ask({}), undefined);
        await assert.rejects(foreign, { code: 'unknown_session' });
      }
    });

  test("has sessions that no worker's are like", () => {
    assert.ok(isOwnSession(`${'a'.repeat(8)}.${'b'.repeat(60)}.${'c'.repeat(22)}`));
    for (const id of ['', 'old-1', crypto.randomUUID(), 'eyJhbGciOiJIUzI1NiJ9.e30.c2ln', 'a.b.c'])
      assert.ok(!isOwnSession(id), id);
  });

  test('loses callers to the mesh as the share grows, and gets none back', () => {
    const share = new TrafficShare();
    const service = { name: 's', definition: {}, instances: [] };
    const callers = Array.from({ length: 1000 }, (_, i) => `caller-${i}`);
    const at = (percent: number) => callers.filter(caller => share.takesCaller(service, percent, caller));
    assert.deepEqual([at(0).length, at(100).length], [0, 1000]);
    const [some, more] = [new Set(at(25)), new Set(at(50))];
    assert.ok([...some].every(caller => more.has(caller)));
    assert.ok(Math.abs(some.size - 250) < 60, String(some.size));
  });
});

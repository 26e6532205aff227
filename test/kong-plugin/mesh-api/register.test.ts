import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { pino } from 'pino';
import { startConsul } from '../../../kong/dev/consul.ts';
import { type Consul, createConsul, type Instance } from '../../../mesh/consul.ts';
import { parseRegistry } from '../../../mesh/registry.ts';
import { createRegistration } from '../../../workers/registration.ts';
import { openConsul, request } from '../../kong/consul-helpers.ts';
import { until } from '../../until.ts';
import { BODY, instance, READER, STRANGER, service, startStandIn, staticApi } from './helpers.ts';

describe('who may not, learns nothing and changes nothing', () => {
  const github = service('github', {}, [
    instance('github-1', { meta: { mcp_server: 'github', registered_by: 'x' } }),
  ]);

  test('without the permission, before the body is read', async () => {
    const api = staticApi([github]);
    for (const body of [BODY, 'no json', undefined]) {
      const answer = await api.ask('/register', { method: 'POST', body, caller: READER });
      assert.deepEqual([answer.status, answer.code], [403, 'forbidden']);
      assert.match(answer.detail, /do not allow to register instances \(mesh: \[register\]\)/);
    }
    assert.match((await api.deregister('github-1', READER)).detail, /do not allow to deregister instances/);
  });

  test('without the permission on the service, whether there is one or not', async () => {
    const seen = new Set<string>();
    for (const services of [[github], []]) {
      const { status, code, detail } = await staticApi(services).register({}, STRANGER);
      seen.add(`${status} ${code} ${detail}`);
    }
    assert.deepEqual([...seen], ['403 forbidden your roles do not allow the service "mcp-github"']);
  });

  test('nor by naming his own service beside the Consul name of another', async () => {
    const owned = staticApi([service('hidden', { service_name: 'mcp-other' })]);
    const { code } = await owned.register({ service_name: 'mcp-other' }, STRANGER);
    assert.equal(code, 'forbidden');
    const api = staticApi([github]);
    const named = await api.register({ metadata: { mcp_server: 'other' } }, STRANGER);
    assert.equal(named.code, 'forbidden');
  });

  test('an instance of a service that is not his is one that does not exist', async () => {
    const agent = {
      deregister: async (_: string, admit?: (registered: Instance | undefined) => void) =>
        admit?.(github.instances[0]),
    };
    const hidden = await staticApi([github], {}, agent as Partial<Consul>).deregister('github-1', STRANGER);
    const none = await staticApi([], {}, {
      deregister: async (_: string, admit?: (registered: undefined) => void) => admit?.(undefined),
    } as Partial<Consul>).deregister('github-1', STRANGER);
    assert.deepEqual(hidden, none);
    assert.deepEqual([none.status, none.code], [404, 'unknown_instance']);
  });

  test('without a policy', async () => {
    const api = staticApi([github], { policy: undefined });
    assert.equal((await api.register()).code, 'forbidden');
    assert.equal((await api.deregister('github-1')).code, 'forbidden');
    assert.deepEqual((await api.ask('/services')).value, { services: [] });
    assert.equal((await api.ask('/services', { query: 'name=github' })).code, 'forbidden');
    assert.deepEqual((await api.ask('/health')).value.services, {});
  });
});

describe('a body that cannot be used is refused with field and cure', () => {
  const cases: [body: unknown, code: string, detail: RegExp][] = [
    [undefined, 'too_large', /larger than 64 KB/],
    ['', 'parse_error', /the body is no JSON/],
    ['{"service_id":', 'parse_error', /the body is no JSON/],
    [
      '[]',
      'invalid_request',
      /must be a JSON object with service_id, service_name, address, port, tags, metadata/,
    ],
    ['null', 'invalid_request', /must be a JSON object/],
    ['['.repeat(30_000), 'parse_error', /no JSON/],
    [{ service_id: 'a' }, 'invalid_request', /service_name: is missing; .*address: is missing/],
    [{ ...BODY, adress: 'x' }, 'invalid_request', /^adress: unknown key; did you mean "address"\?$/],
    [{ ...BODY, service_id: '../x' }, 'invalid_request', /^service_id: must be letters, digits/],
    [{ ...BODY, service_id: 'a b' }, 'invalid_request', /^service_id: /],
    [{ ...BODY, service_id: 'a\n' }, 'invalid_request', /^service_id: /],
    [{ ...BODY, service_id: 'x'.repeat(193) }, 'invalid_request', /^service_id: /],
    [{ ...BODY, service_name: 'GitHub' }, 'invalid_request', /^service_name: must be the name in Consul/],
    [
      { ...BODY, service_name: 'github' },
      'invalid_request',
      /^service_name: does not begin with "mcp-"; say in/,
    ],
    [
      { ...BODY, service_name: 'mcp--x' },
      'invalid_request',
      /^service_name: does not begin with "mcp-"; say in/,
    ],
    [
      { ...BODY, service_name: 'db', metadata: { mcp_server: 'github' } },
      'invalid_request',
      /is "mcp-github" in/,
    ],
    [{ ...BODY, address: '' }, 'invalid_request', /^address: is empty/],
    [{ ...BODY, address: 7 }, 'invalid_request', /^address: .*string/],
    [
      { ...BODY, address: '127.1' },
      'invalid_request',
      /^address: .*write four decimal numbers, such as 127\.0\.0\.1/,
    ],
    [{ ...BODY, address: 'nobody.example' }, 'invalid_request', /^address: .*not known to DNS/],
    [
      { ...BODY, address: '192.168.0.1' },
      'forbidden',
      /^address: 192\.168\.0\.1 is in none of the allowed_networks/,
    ],
    [{ ...BODY, address: '169.254.169.254' }, 'forbidden', /^address: .*link-local/],
    [{ ...BODY, port: 0 }, 'invalid_request', /^port: must be 1 or more/],
    [{ ...BODY, port: 65_536 }, 'invalid_request', /^port: must be 65535 or less/],
    [{ ...BODY, port: '80' }, 'invalid_request', /^port: must be a whole number/],
    [{ ...BODY, port: 80.5 }, 'invalid_request', /^port: must be a whole number/],
    [{ ...BODY, tags: 'blue' }, 'invalid_request', /^tags: /],
    [{ ...BODY, tags: ['traefik.enable=true'] }, 'invalid_request', /^tags\[0\]: must be letters/],
    [{ ...BODY, tags: ['urlprefix-/'] }, 'invalid_request', /^tags\[0\]: must be letters/],
    [{ ...BODY, tags: Array(33).fill('x') }, 'invalid_request', /^tags: must be 32 at most/],
    [{ ...BODY, metadata: { a: 1 } }, 'invalid_request', /^metadata\.a: must be a string/],
    [{ ...BODY, metadata: { 'a.b': 'x' } }, 'invalid_request', /^metadata\.a\.b: is no key/],
    [
      { ...BODY, metadata: { a: 'é'.repeat(257) } },
      'invalid_request',
      /^metadata\.a: is longer than 512 bytes/,
    ],
    [{ ...BODY, metadata: { a: 'x\ny' } }, 'invalid_request', /^metadata\.a: holds a control character/],
    [
      { ...BODY, metadata: { mcp_server: '../x' } },
      'invalid_request',
      /^metadata\.mcp_server: is no service name/,
    ],
    [{ ...BODY, metadata: { ['k'.repeat(129)]: 'x' } }, 'invalid_request', /^metadata\.k{64}…: unknown key/],
    [{ ...BODY, ['k'.repeat(60_000)]: 'x' }, 'invalid_request', /^k{64}…: unknown key/],
    [
      { ...BODY, metadata: Object.fromEntries(Array.from({ length: 57 }, (_, i) => [`k${i}`, ''])) },
      'invalid_request',
      /^metadata: has more than 56 entries/,
    ],
    [
      { ...BODY, metadata: Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`k${i}`, 1])) },
      'invalid_request',
      /^metadata\. has more than 100 members/,
    ],
    [
      `{"__proto__":{"port":1},${JSON.stringify(BODY).slice(1)}`,
      'invalid_request',
      /^__proto__: unknown key/,
    ],
    [
      JSON.stringify({ ...BODY, metadata: {} }).replace('"metadata":{}', '"metadata":{"__proto__":"x"}'),
      'invalid_request',
      /^metadata\.__proto__: unknown key/,
    ],
    ...['role', 'instance', 'sharing', 'strategy', 'started_at', 'registered_by', 'registered_at'].map(
      (key): [unknown, string, RegExp] => [
        { ...BODY, metadata: { [key]: 'x' } },
        'invalid_request',
        new RegExp(`^metadata\\.${key}: is for the mesh to say; leave it out$`),
      ],
    ),
  ];
  const { ask } = staticApi([]);
  for (const [body, code, detail] of cases) {
    test(`${code}: ${detail.source}`, async () => {
      const answer = await ask('/register', { method: 'POST', body });
      assert.equal(answer.code, code, answer.detail);
      assert.match(answer.detail, detail);
      assert.ok(answer.detail.length <= 501);
    });
  }
});

describe('the service that an instance is of', () => {
  const definitions = [
    service('my_files'),
    service('github', { service_name: 'code-hosting', weight: 30, health_check: '/alive' }),
  ];
  const taken: Parameters<Consul['register']>[0][] = [];
  const agent: Partial<Consul> = {
    async register(registration) {
      taken.push(registration);
    },
  };
  const { register } = staticApi(definitions, {}, agent);
  const good: [desc: string, body: object, mcpServer: string][] = [
    ['is known by its definition', { service_name: 'mcp-my-files' }, 'my_files'],
    ['is known by the name that its definition chose', { service_name: 'code-hosting' }, 'github'],
    ['is named', { service_name: 'mcp-my-files', metadata: { mcp_server: 'my_files' } }, 'my_files'],
    ['is a new one', { service_name: 'mcp-brand-new' }, 'brand-new'],
    [
      'is a new one with a name of its own',
      { service_name: 'mcp-a-b', metadata: { mcp_server: 'a_b' } },
      'a_b',
    ],
  ];
  for (const [desc, body, mcpServer] of good) {
    test(desc, async () => {
      const { status, detail } = await register(body);
      assert.deepEqual([status, detail, taken.at(-1)?.meta.mcp_server], [201, '', mcpServer]);
    });
  }

  test('says the weight and the path of its health', async () => {
    await register({ service_name: 'code-hosting', address: 'fd12:0::7' });
    assert.partialDeepStrictEqual(taken.at(-1), {
      address: 'fd12::7',
      weights: { passing: 30, warning: 3 },
      health: { url: 'http://[fd12::7]:11100/alive' },
    });
  });

  test('may not be one that has another name in Consul', async () => {
    const other = await register({ service_name: 'mcp-github' });
    assert.match(
      other.detail,
      /^service_name: the service "github" is "code-hosting" in Consul; write that$/,
    );
    const thief = await register({ service_name: 'mcp-my-files', metadata: { mcp_server: 'my-files' } });
    assert.match(thief.detail, /^service_name: is that of "my_files"; say so in metadata.mcp_server$/);
  });
});

test('an id of another agent’s is neither taken nor removed', async () => {
  const elsewhere = instance('github-1', {
    node: 'node-b',
    meta: { mcp_server: 'github', registered_by: 'key:owner' },
  });
  const agent = {
    register: async (_: unknown, admit?: (registered: undefined) => void) => admit?.(undefined),
    deregister: async (_: unknown, admit?: (registered: undefined) => void) => admit?.(undefined),
  } as Partial<Consul>;
  const { register, deregister } = staticApi([service('github', {}, [elsewhere])], {}, agent);
  for (const answer of [await register(), await deregister('github-1')]) {
    assert.equal(answer.code, 'conflict');
    assert.match(answer.detail, /registered at the Consul agent of "node-b", which is not this gateway's/);
  }
});

test('a Consul that is away is said so, and the log has the reason', async t => {
  const { url, close } = await startConsul();
  await close();
  const consul = createConsul({ url });
  t.after(() => consul.close());
  const api = staticApi([], {}, consul);
  for (const answer of [await api.register(), await api.deregister('github-1')]) {
    assert.deepEqual([answer.status, answer.code], [503, 'consul_unavailable']);
    assert.doesNotMatch(answer.detail, /127\.0\.0\.1/);
  }
  assert.match(api.logged.join('\n'), /look up github-1.*is an agent running there/);
});

test('what a real worker says of itself, a caller can only describe or not set at all', async t => {
  const url = await startStandIn(t);
  const { services } = parseRegistry('mcp_services: [{ name: github, command: x }]', 'r.yaml', { env: {} });
  const registration = createRegistration({
    consul: openConsul(t, url),
    service: services[0]!,
    host: 'h',
    address: '127.0.0.1',
    port: 1,
    log: pino({ level: 'silent' }),
  });
  t.after(() => registration.stop());
  registration.describe({ version: '1', era: 'legacy', protocol_version: 'x', tools_hash: 'x' });
  registration.start();
  const found = await until(async () => {
    const { status, json } = await request(url, 'agent/service/mcp-github-h-1');
    return status === 200 && (json() as { Meta: Record<string, string> });
  });
  const { register } = staticApi([], {}, { register: async () => {} });
  const open: string[] = [];
  for (const key of Object.keys(found.Meta)) {
    if ((await register({ metadata: { [key]: 'github' } })).status === 201) open.push(key);
  }
  assert.deepEqual(open.sort(), ['capabilities', 'era', 'mcp_server', 'protocol_version', 'version']);
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MethodNotAllowed } from '../../../kong-plugin/mesh-api.ts';
import { ownerHash } from '../../../mesh/names.ts';
import { type Ask, instance, OPERATOR, OWNER, READER, STRANGER, service, staticApi } from './helpers.ts';

describe('what there is', () => {
  const github = service('github', { service_name: 'code-hosting' }, [
    instance('w-1', {
      service: 'code-hosting',
      tags: ['mcp', 'eu'],
      meta: {
        mcp_server: 'github',
        capabilities: 'search, read',
        era: 'both',
        version: '2',
        sharing: 'shared',
      },
    }),
    instance('w-2', {
      node: 'node-b',
      status: 'critical',
      meta: { mcp_server: 'github', registered_by: 'key:x' },
    }),
  ]);
  const { ask } = staticApi([github, service('other', {}, [instance('o-1')]), service('my_files')]);

  test('services, with their instances', async () => {
    const { status, value } = await ask('/services', { query: 'name=github' });
    assert.deepEqual(
      [status, value],
      [
        200,
        {
          services: [
            {
              service: 'github',
              instances: 2,
              consul_service: 'code-hosting',
              path: '/api/v1/mcp/github',
              details: [
                { id: 'w-1', state: 'passing', tags: ['mcp', 'eu'], capabilities: ['search', 'read'] },
                { id: 'w-2', state: 'critical', tags: ['mcp'], capabilities: [] },
              ],
            },
          ],
        },
      ],
    );
  });

  test('topology', async () => {
    const { value } = await ask('/topology/', { caller: READER });
    assert.deepEqual(value, {
      services: [
        {
          service: 'github',
          consul_service: 'code-hosting',
          instances: [
            {
              id: 'w-1',
              node: 'node-a',
              address: '10.0.0.1',
              port: 1,
              state: 'passing',
              era: 'both',
              protocol_version: null,
              version: '2',
              sharing: 'shared',
              owner: ownerHash('w-1'),
              origin: 'worker',
            },
            {
              id: 'w-2',
              node: 'node-b',
              address: '10.0.0.1',
              port: 1,
              state: 'critical',
              era: null,
              protocol_version: null,
              version: null,
              sharing: null,
              owner: ownerHash('w-2'),
              origin: 'api',
            },
          ],
        },
      ],
    });
  });

  test('health: of each service, and of all that the caller sees', async () => {
    const counts = { instances: 0, passing: 0, warning: 0, critical: 0, maintenance: 0 };
    const { value } = await ask('/health');
    assert.deepEqual(value, {
      status: 'degraded',
      catalogue_age_s: 5,
      services: {
        github: { ...counts, status: 'degraded', instances: 2, passing: 1, critical: 1 },
        other: { ...counts, status: 'ok', instances: 1, passing: 1 },
        my_files: { ...counts, status: 'down' },
      },
    });
    assert.equal((await ask('/health', { caller: STRANGER })).value.status, 'ok');
    const files = staticApi([service('my_files')]);
    assert.equal((await files.ask('/health')).value.status, 'down');
    assert.equal((await staticApi([]).ask('/health')).value.status, 'ok');
  });

  test('a caller sees the services that he may use', async () => {
    const names = async (path: string, caller: typeof OWNER) =>
      ((await ask(path, { caller })).value.services as { service: string }[]).map(one => one.service);
    for (const path of ['/services', '/topology']) {
      assert.deepEqual(await names(path, OPERATOR), ['github', 'other', 'my_files']);
      assert.deepEqual(await names(path, OWNER), ['github', 'my_files']);
      assert.deepEqual(await names(path, READER), ['github']);
    }
    assert.deepEqual(Object.keys((await ask('/health', { caller: READER })).value.services as object), [
      'github',
    ]);
  });

  test('a name is the service’s or Consul’s; one that is not the caller’s is refused, existing or not', async () => {
    const find = (name: string, caller = OPERATOR) => ask('/services', { query: `name=${name}`, caller });
    for (const name of ['my_files', 'mcp-my-files', 'code-hosting']) {
      assert.equal(((await find(name)).value.services as unknown[]).length, 1);
    }
    assert.equal((await find('nope')).code, 'unknown_service');
    assert.equal((await find('mcp-github')).code, 'unknown_service');
    for (const name of ['other', 'nope', 'mcp-other'])
      assert.equal((await find(name, READER)).code, 'forbidden');
  });

  const faults: [path: string, options: Ask, code: string, detail: RegExp][] = [
    [
      '/services',
      { query: 'nam=github' },
      'invalid_request',
      /^query parameter "nam": unknown; did you mean "name"/,
    ],
    ['/services', { query: 'x=1' }, 'invalid_request', /^query parameter "x": unknown; there is name$/],
    ['/services', { query: 'name=a&name=b' }, 'invalid_request', /"name": comes twice/],
    ['/services', { query: 'name=' }, 'invalid_request', /"name": must be a service/],
    ['/services', { query: 'name=%2e%2e%2f' }, 'invalid_request', /"name": must be a service/],
    ['/services', { query: '__proto__=1' }, 'invalid_request', /"__proto__": unknown/],
    ['/topology', { query: 'name=github' }, 'invalid_request', /"name": unknown; there are none here/],
    ['/health', { query: `${'x'.repeat(5000)}=1` }, 'invalid_request', /^query parameter "x{64}": unknown/],
    [
      '',
      {},
      'unknown_path',
      /POST \/register, DELETE \/deregister\/<service_id>, GET \/services, GET \/topology/,
    ],
    ['/nope', {}, 'unknown_path', /behind \/api\/v1\/mesh\/v2 there are/],
    ['/constructor', {}, 'unknown_path', /there are/],
    ['/services/github', {}, 'unknown_path', /there are/],
    ['/deregister', { method: 'DELETE' }, 'unknown_path', /there are/],
    ['/deregister/a/b', { method: 'DELETE' }, 'unknown_path', /there are/],
    ['/deregister/a%2Fb', { method: 'DELETE' }, 'unknown_instance', /there is no instance "a\/b"/],
    ['/deregister/%zz', { method: 'DELETE' }, 'unknown_instance', /there is no instance "%zz"/],
    ['/register', {}, 'method_not_allowed', /^use POST$/],
    ['/services', { method: 'POST' }, 'method_not_allowed', /^use GET or HEAD$/],
    ['/deregister/a', { method: 'POST' }, 'method_not_allowed', /^use DELETE$/],
  ];
  for (const [path, options, code, detail] of faults) {
    test(`${options.method ?? 'GET'} ${path}?${(options.query ?? '').slice(0, 30)} is ${code}`, async () => {
      const answer = await ask(path, options);
      assert.equal(answer.code, code, answer.detail);
      assert.match(answer.detail, detail);
    });
  }
});

test('a method that is not allowed comes with those that are', () => {
  const error = new MethodNotAllowed(['GET', 'HEAD']);
  assert.deepEqual([error.status, error.headers], [405, { allow: 'GET, HEAD' }]);
});

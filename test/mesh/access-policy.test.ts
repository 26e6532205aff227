import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import {
  AccessPolicyError,
  hashApiKey,
  loadAccessPolicy,
  parseAccessPolicy,
} from '../../mesh/access-policy.ts';
import { GRANTS_BYTES_MAX, mayMesh, mayUse, permissionsOf } from '../../mesh/grants.ts';

const HASH = `sha256:${'ab'.repeat(32)}`;
const OTHER = `sha256:${'cd'.repeat(32)}`;
const NOW = Date.parse('2026-11-22T00:00:00Z');
const ROLES = 'roles:\n  developer: { allow: [{ service: files }] }\n';

function parse(text: string) {
  return parseAccessPolicy(text, { path: 'access.yaml', now: () => NOW });
}

function faultsOf(text: string): string[] {
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof AccessPolicyError);
    return error.message.split('\n').map(line => line.replace(/^access\.yaml:/, ''));
  }
  assert.fail('the policy was accepted');
}

function key(fields: string): string {
  return `${ROLES}api_keys:\n  - { id: ci-bot, hash: "${HASH}", roles: [developer] }\n  - { ${fields} }\n`;
}

function issuer(fields: Record<string, string>): string {
  const all = {
    issuer: 'https://idp.example.com',
    jwks_uri: 'https://idp.example.com/keys',
    audience: 'https://mesh/api/v1/mcp',
    ...fields,
  };
  return `${ROLES}jwt:\n  - ${Object.entries(all)
    .map(([name, value]) => `${name}: ${value}`)
    .join('\n    ')}\n`;
}

function role(lines: string): string {
  return `roles:\n  developer:\n${lines.replace(/^/gm, '    ')}\n`;
}

describe('a broken policy is refused with line, field and cure', () => {
  const cases: { desc: string; text: string; want: string | RegExp }[] = [
    {
      desc: 'unknown role of a key',
      text: key(`id: b, hash: "${OTHER}", roles: [develper]`),
      want: '5: api_keys[1].roles[0]: unknown role "develper"; did you mean "developer"?; there are: developer',
    },
    {
      desc: 'unknown role of anonymous callers',
      text: `anonymous: everyone\n${ROLES}`,
      want: '1: anonymous: unknown role "everyone"; there are: developer',
    },
    {
      desc: 'a role named like a property that every object has',
      text: `anonymous: constructor\n${ROLES}`,
      want: '1: anonymous: unknown role "constructor"; there are: developer',
    },
    {
      desc: 'duplicate key id',
      text: key(`id: ci-bot, hash: "${OTHER}", roles: []`),
      want: '5: api_keys[1].id: "ci-bot" is already api_keys[0]; choose another',
    },
    {
      desc: 'one key for two ids',
      text: key(`id: b, hash: "${HASH}", roles: []`),
      want: '5: api_keys[1].hash: is already a key of "ci-bot"; one key has one holder',
    },
    {
      desc: 'a former key of one id is the key of another',
      text: key(`id: b, hash: "${OTHER}", roles: [], previous: [{ hash: "${HASH}", expires: 2027-01-01 }]`),
      want: '5: api_keys[1].previous[0].hash: is already a key of "ci-bot"; one key has one holder',
    },
    {
      desc: 'bad hash',
      text: key('id: b, hash: "sha256:abc", roles: []'),
      want: '5: api_keys[1].hash: must be "sha256:" and 64 hex digits in lower case; `mesh keys create` makes one',
    },
    {
      desc: 'the key in place of its hash is not repeated',
      text: key('id: b, hash: mk_secret, roles: []'),
      want: '5: api_keys[1].hash: is the key itself, which must not stand here: it is known now, so make another by `mesh keys create`',
    },
    {
      desc: 'a day that does not exist',
      text: key(`id: b, hash: "${OTHER}", roles: [], expires: 2027-02-30`),
      want: /^5: api_keys\[1\]\.expires: must be a date such as/,
    },
    {
      desc: 'a time without a zone',
      text: key(`id: b, hash: "${OTHER}", roles: [], expires: 2027-02-20T10:00:00`),
      want: /^5: api_keys\[1\]\.expires: must be a date such as/,
    },
    {
      desc: 'former key that never ends',
      text: key(`id: b, hash: "${OTHER}", roles: [], previous: [{ hash: "${HASH}" }]`),
      want: /^5: api_keys\[1\]\.previous\[0\]\.expires: must be a date/,
    },
    {
      desc: 'id with a line end',
      text: key(`id: "a\\nb", hash: "${OTHER}", roles: []`),
      want: /^5: api_keys\[1\]\.id: must be letters, digits/,
    },
    {
      desc: 'unknown key in a list',
      text: key(`id: b, hash: "${OTHER}", roles: [], expire: 2027-01-01`),
      want: '5: api_keys[1].expire: unknown key; did you mean "expires"?',
    },
    {
      desc: 'unknown key in a role',
      text: role('rate_limits: { requests: 1, window_s: 1 }'),
      want: '3: roles.developer.rate_limits: unknown key; did you mean "rate_limit"?',
    },
    {
      desc: 'unknown key in a rule',
      text: role('allow:\n  - service: files\n    tool: [x]'),
      want: '5: roles.developer.allow[0].tool: unknown key; did you mean "tools"?',
    },
    {
      desc: 'unknown key at the top',
      text: `anonymus: local\n${ROLES}`,
      want: '1: anonymus: unknown key; did you mean "anonymous"?',
    },
    {
      desc: 'role name with a comma',
      text: 'roles:\n  "a,b": {}\n',
      want: '2: roles.a,b: is no role name: 128 characters at most, none of them a comma or a control character',
    },
    ...['10.0.0.0/33', '10.0.0/8', '::/129', 'fe80::1%eth0/64', '10.0.0.0/08', 'localhost/8'].map(cidr => ({
      desc: `bad network ${cidr}`,
      text: `allowed_networks:\n  - 10.0.0.0/8\n  - "${cidr}"\n`,
      want: `3: allowed_networks[1]: "${cidr}" is no network such as 10.0.0.0/8`,
    })),
    {
      desc: 'an address in place of a network',
      text: 'allowed_networks: ["::1"]',
      want: '1: allowed_networks[0]: "::1" is no network such as 10.0.0.0/8; write ::1/128 for this one address',
    },
    {
      desc: 'issuer without TLS',
      text: issuer({ issuer: 'http://idp.example.com' }),
      want: '4: jwt[0].issuer: "http://idp.example.com" must be https: without it, anybody on the way could put in keys of their own',
    },
    {
      desc: 'keys without TLS, from a name that only begins like loopback',
      text: issuer({ jwks_uri: 'http://127.0.0.1.example.com/keys' }),
      want: /^5: jwt\[0\]\.jwks_uri: "http:\/\/127\.0\.0\.1\.example\.com\/keys" must be https/,
    },
    {
      desc: 'issuer that is no URL',
      text: issuer({ issuer: 'idp' }),
      want: '4: jwt[0].issuer: "idp" is no https URL',
    },
    {
      desc: 'keys from a file',
      text: issuer({ jwks_uri: 'file:///etc/keys' }),
      want: '5: jwt[0].jwks_uri: "file:///etc/keys" is no https URL',
    },
    {
      desc: 'URL with a password, which is not repeated',
      text: issuer({ jwks_uri: 'https://u:p@idp.example.com/keys' }),
      want: '5: jwt[0].jwks_uri: holds a user name or password; take it out',
    },
    {
      desc: 'audience with a slash at its end',
      text: issuer({ audience: 'https://mesh/api/v1/mcp/' }),
      want: '6: jwt[0].audience: ends with "/"; leave it out: a service is added as "/<name>"',
    },
    ...['none', 'None', 'NONE'].map(name => ({
      desc: `algorithm ${name}`,
      text: issuer({ algorithms: `[RS256, ${name}]` }),
      want: '7: jwt[0].algorithms[1]: "none" takes tokens that nobody signed; leave it out',
    })),
    ...['HS256', 'HS384', 'HS512', 'hs256'].map(name => ({
      desc: `algorithm ${name}`,
      text: issuer({ algorithms: `[${name}]` }),
      want: new RegExp(
        `^7: jwt\\[0\\]\\.algorithms\\[0\\]: "${name}" signs with a shared secret: .*; take ES256`,
      ),
    })),
    {
      desc: 'unknown algorithm',
      text: issuer({ algorithms: '[EdDSS]' }),
      want: '7: jwt[0].algorithms[0]: "EdDSS" is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA; did you mean "EdDSA"?',
    },
    {
      desc: 'no algorithm',
      text: issuer({ algorithms: '[]' }),
      want: '7: jwt[0].algorithms: names none; take ES256 or EdDSA, or leave it out',
    },
    {
      desc: 'quota period',
      text: role('quota: { calls: 1, period: dya }'),
      want: '3: roles.developer.quota.period: "dya" is not one of day, month; did you mean "day"?',
    },
    {
      desc: 'window longer than a day',
      text: role('rate_limit: { requests: 1, window_s: 86401 }'),
      want: /^3: roles\.developer\.rate_limit\.window_s: too big/,
    },
    {
      desc: 'limit of nothing',
      text: role('in_flight: 0'),
      want: /^3: roles\.developer\.in_flight: too small/,
    },
    {
      desc: 'two rates of one pattern for one window',
      text: role(
        'tool_rates:\n  - { tool: x, calls: 1, window_s: 60 }\n  - { tool: x, calls: 2, window_s: 60 }',
      ),
      want: '5: roles.developer.tool_rates[1].tool: "x" has a rate for 60 s already, tool_rates[0]; keep one of them',
    },
    {
      desc: 'unknown mesh action',
      text: role('mesh: [registr]'),
      want: '3: roles.developer.mesh[0]: "registr" is not one of register, deregister; did you mean "register"?',
    },
    {
      desc: 'service with capitals',
      text: role('allow: [{ service: GitHub }]'),
      want: /^3: roles\.developer\.allow\[0\]\.service: is no service name/,
    },
    {
      desc: 'rule that names no tool',
      text: role('allow: [{ service: files, tools: [] }]'),
      want: '3: roles.developer.allow[0].tools: names nothing; leave it out, or name something',
    },
    {
      desc: 'tools that were left empty do not open the whole service',
      text: role('allow:\n  - service: files\n    tools:'),
      want: /^\d: roles\.developer\.allow\[0\]\.tools: invalid input: expected array/,
    },
    {
      desc: 'pattern with a space at its end',
      text: role('allow: [{ service: files, tools: ["get_* "] }]'),
      want: /^3: roles\.developer\.allow\[0\]\.tools\[0\]: begins or ends with a space/,
    },
    { desc: 'not YAML', text: 'roles: {', want: /^1: / },
    { desc: 'key twice', text: 'roles: {}\nroles: {}', want: /^2: Map keys must be unique/ },
    { desc: 'empty', text: ' \n', want: '1: the file is empty; write at least "roles: {}"' },
    { desc: 'a list', text: '[]', want: '1: invalid input: expected object, received array' },
    {
      desc: 'aliases that multiply',
      text: `a: &a [x]\n${[...'bcdefghi'].map((name, i) => `${name}: &${name} [${`*${'abcdefghi'[i]},`.repeat(9)}]`).join('\n')}`,
      want: /^1: Excessive alias count/,
    },
  ];
  for (const { desc, text, want } of cases) {
    test(desc, () => {
      const [first] = faultsOf(text);
      if (typeof want === 'string') assert.equal(first, want);
      else assert.match(first ?? '', want);
    });
  }

  test('every fault is reported at once', () => {
    assert.equal(faultsOf(`anonymous: a\n${key(`id: ci-bot, hash: "${HASH}", roles: [b]`)}`).length, 4);
  });

  test('a file that is not there names the setting', () => {
    assert.throws(
      () => loadAccessPolicy('/nowhere/a.yaml'),
      /\/nowhere\/a.yaml: cannot be read \(ENOENT\); MESH_ACCESS_POLICY names/,
    );
  });
});

test('the full form of the design loads', () => {
  const text = `version: 1
anonymous: null
allowed_networks: [10.0.0.0/8, "fd00::/8"]
api_keys:
  - id: ci-bot
    hash: "${HASH}"
    roles: [developer]
    expires: 2027-01-01
    previous: [{ hash: "${OTHER}", expires: "2026-12-01T10:00:00Z" }]
jwt:
  - { issuer: https://idp.example.com, jwks_uri: "http://localhost:1/keys", audience: https://mesh.example.com/api/v1/mcp, algorithms: [RS256, ES256, EdDSA], roles_claim: groups }
roles:
  developer:
    allow: [{ service: github, tools: ["get_*", "list_*"] }, { service: files }]
    deny:  [{ service: files, tools: [delete_*] }]
    rate_limit: { requests: 600, window_s: 60 }
    quota: { calls: 10000, period: day }
    in_flight: 20
    tool_rates: [{ tool: "create_*", calls: 5, window_s: 60 }]
  admin: { allow: [{ service: "*" }], mesh: [register, deregister] }
`;
  const { policy, warnings } = parse(text);
  const { roles, apiKeys, ...rest } = policy;
  assert.deepEqual(warnings, []);
  assert.deepEqual(rest, {
    version: createHash('sha256').update(text).digest('hex').slice(0, 12),
    anonymous: null,
    allowedNetworks: ['10.0.0.0/8', 'fd00::/8'],
    issuers: [
      {
        issuer: 'https://idp.example.com',
        jwksUri: 'http://localhost:1/keys',
        audience: 'https://mesh.example.com/api/v1/mcp',
        algorithms: ['RS256', 'ES256', 'EdDSA'],
        rolesClaim: 'groups',
      },
    ],
  });
  assert.deepEqual(apiKeys, [
    { id: 'ci-bot', hash: Buffer.alloc(32, 0xab), roles: ['developer'], expires: Date.UTC(2027, 0, 1) },
    { id: 'ci-bot', hash: Buffer.alloc(32, 0xcd), roles: ['developer'], expires: Date.UTC(2026, 11, 1, 10) },
  ]);
  assert.deepEqual(roles.get('developer'), {
    allow: [{ service: 'github', tools: ['get_*', 'list_*'] }, { service: 'files' }],
    deny: [{ service: 'files', tools: ['delete_*'] }],
    mesh: [],
    rateLimit: { requests: 600, windowS: 60 },
    quota: { calls: 10000, period: 'day' },
    inFlight: 20,
    toolRates: [{ pattern: 'create_*', calls: 5, windowS: 60 }],
  });
  assert.deepEqual(roles.get('admin')?.mesh, ['register', 'deregister']);
});

test('a policy that says nothing lets nobody in', () => {
  const { policy } = parse('version: 1');
  assert.deepEqual([policy.anonymous, policy.apiKeys, policy.issuers, policy.roles.size], [null, [], [], 0]);
});

test('an expired key is a warning, and stays known so that its holder can be told', () => {
  const { policy, warnings } = parse(key(`id: old, hash: "${OTHER}", roles: [], expires: 2026-11-22`));
  assert.equal(policy.apiKeys.length, 2);
  assert.deepEqual(warnings, [
    'access.yaml:5: api_keys[1].expires: the key of "old" expired; `mesh keys revoke old` removes it, `mesh keys rotate old` renews it',
  ]);
});

test("the end of a holder's access ends the former keys, too", () => {
  const previous = `previous: [{ hash: "${OTHER}", expires: 2027-06-01 }]`;
  const { policy } = parse(
    `${ROLES}api_keys: [{ id: a, hash: "${HASH}", roles: [], expires: 2027-01-01, ${previous} }]`,
  );
  assert.deepEqual(
    policy.apiKeys.map(({ expires }) => expires),
    [Date.UTC(2027, 0, 1), Date.UTC(2027, 0, 1)],
  );
});

describe('what a role grants in one service fits into an identity header', () => {
  const names = (count: number) => Array.from({ length: count }, (_, i) => `tool_number_${i}`).join(', ');
  const size = (count: number) =>
    JSON.stringify({ grants: { allow: [{ tools: names(count).split(', ') }], deny: [] }, limits: {} }).length;
  const most =
    Array.from({ length: 500 }, (_, i) => i).findLast(count => size(count) <= GRANTS_BYTES_MAX) ?? 0;

  test('up to the limit it loads, one tool more is an error naming the role', () => {
    const policy = (count: number) => role(`allow: [{ service: files, tools: [${names(count)}] }]`);
    assert.ok(permissionsOf(parse(policy(most)).policy, ['developer'], 'files'));
    assert.match(
      faultsOf(policy(most + 1))[0] ?? '',
      /^2: roles\.developer: for the service "files" the role "developer" takes \d+ bytes of grants, and an identity header holds 4096/,
    );
  });

  test('a long list for each of many services is fine: only one of them travels', () => {
    const rules = ['a', 'b', 'c', 'd'].map(service => `{ service: ${service}, tools: [${names(most)}] }`);
    assert.ok(parse(role(`allow: [${rules.join(', ')}]`)));
  });

  test('patterns of services count together, since one service may match them all', () => {
    const half = names(Math.ceil(most * 0.6));
    const rules = `{ service: "a*", tools: [${half}] }, { service: "*b", tools: [x, ${half}] }`;
    assert.match(faultsOf(role(`allow: [${rules}]`))[0] ?? '', /the service "\*" the role "developer" takes/);
  });

  test('the roles of one key count together', () => {
    const half = Math.ceil(most * 0.6);
    const text = `roles:
  a: { allow: [{ service: files, tools: [${names(half)}] }] }
  b: { allow: [{ service: files, tools: [x, ${names(half)}] }] }
api_keys:
  - { id: k, hash: "${HASH}", roles: [a, b] }
`;
    assert.match(faultsOf(text)[0] ?? '', /^5: api_keys\[0\]\.roles: .* these roles together take \d+ bytes/);
  });
});

test('the shipped policy lets anonymous callers do everything', () => {
  const { policy, warnings } = loadAccessPolicy('config/access.yaml');
  const roles = [policy.anonymous ?? ''];
  const { grants, limits } = permissionsOf(policy, roles, 'everything') ?? assert.fail('nobody gets in');
  assert.deepEqual([warnings, limits], [[], {}]);
  assert.ok(mayUse(grants, 'tools', 'echo') && mayUse(grants, 'resources', 'file:///a/../b'));
  assert.ok(mayMesh(policy, roles, 'register') && mayMesh(policy, roles, 'deregister'));
});

test('the role that the shipped policy shows in a comment is a good one', () => {
  const text = readFileSync('config/access.yaml', 'utf8');
  const shown = text.slice(text.indexOf('# developer:')).replace(/^# ?/gm, '  ');
  const issuers = text.slice(text.indexOf('# jwt:'), text.indexOf('# `*`')).replace(/^# ?/gm, '');
  const { policy } = parse(`${issuers}\nroles:\n${shown}`);
  assert.equal(policy.roles.get('developer')?.quota?.calls, 10000);
  assert.equal(policy.issuers.length, 1);
});

test('the hash of an API key is the SHA-256 of its whole text', () => {
  assert.equal(hashApiKey('mk_x').toString('hex'), createHash('sha256').update('mk_x').digest('hex'));
});

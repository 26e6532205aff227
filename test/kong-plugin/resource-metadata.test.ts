import assert from 'node:assert/strict';
import { createServer, validateHeaderValue } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import {
  checkResourceAllowed,
  discoverOAuthProtectedResourceMetadata,
  extractWWWAuthenticateParams,
} from '@modelcontextprotocol/client';
import {
  AuthenticationError,
  challenge,
  resourceMetadata,
  resourceUri,
  WELL_KNOWN,
} from '../../kong-plugin/resource-metadata.ts';
import type { AccessPolicy, JwtIssuer, Role, Rule } from '../../mesh/access-policy.ts';
import { MeshError } from '../../mesh/errors.ts';

const PUBLIC = 'https://mesh.example.com';
const METADATA = `${PUBLIC}${WELL_KNOWN}/api/v1/mcp`;
const issuer: JwtIssuer = {
  issuer: 'https://idp.example.com',
  jwksUri: 'https://idp.example.com/keys',
  audience: `${PUBLIC}/api/v1/mcp`,
  algorithms: ['ES256'],
  rolesClaim: 'roles',
};

function role(allow: Rule[], deny: Rule[] = []): Role {
  return {
    allow,
    deny,
    mesh: [],
    rateLimit: undefined,
    quota: undefined,
    inFlight: undefined,
    toolRates: [],
  };
}

function policyOf(issuers: JwtIssuer[], roles: Record<string, Role> = {}): AccessPolicy {
  const rest = { version: '0', anonymous: null, allowedNetworks: [], apiKeys: [] };
  return { ...rest, issuers, roles: new Map(Object.entries(roles)) };
}

const plain = policyOf([]);
const oauth = policyOf([issuer], { developer: role([{ service: 'github' }]) });
const scoped = policyOf([{ ...issuer, rolesClaim: 'scope' }], {
  none: role([{ service: '*' }], [{ service: 'github' }]),
  developer: role([{ service: 'git*', tools: ['get_*'] }]),
  admin: role([{ service: '*' }]),
  offline_access: role([{ service: 'vault' }]),
  'no "scope"': role([{ service: 'vault' }]),
});

describe('WWW-Authenticate', () => {
  const missing = new AuthenticationError('no_credential', 'x');
  const wrong = new AuthenticationError('bad_token', 'x');
  const forbidden = new MeshError('forbidden', { detail: 'x' });
  const away = new AuthenticationError('no_issuer_keys', 'x', { retryAfterMs: 10 });
  const open = { publicUrl: PUBLIC, policy: oauth };
  const jwt = { ...open, principal: 'jwt:https://idp.example.com#u' };
  const cases: [
    desc: string,
    error: MeshError,
    service: string | undefined,
    options: Parameters<typeof challenge>[2],
    value: string | undefined,
  ][] = [
    ['nothing sent', missing, 'github', open, `Bearer resource_metadata="${METADATA}/github"`],
    [
      'wrong token',
      wrong,
      'github',
      open,
      `Bearer resource_metadata="${METADATA}/github", error="invalid_token"`,
    ],
    ['no service', missing, undefined, open, `Bearer resource_metadata="${METADATA}"`],
    [
      'any 401',
      new MeshError('unauthenticated'),
      'github',
      open,
      `Bearer resource_metadata="${METADATA}/github"`,
    ],
    [
      'two credentials',
      new AuthenticationError('ambiguous', 'x'),
      'github',
      open,
      `Bearer resource_metadata="${METADATA}/github", error="invalid_request"`,
    ],
    [
      'keys of the issuer away: the token may be good',
      away,
      'github',
      open,
      `Bearer resource_metadata="${METADATA}/github"`,
    ],
    [
      'too few roles in a token',
      forbidden,
      'github',
      jwt,
      `Bearer resource_metadata="${METADATA}/github", error="insufficient_scope"`,
    ],
    ['too few roles of an API key', forbidden, 'github', { ...open, principal: 'key:ci' }, undefined],
    ['forbidden by Host', forbidden, 'github', open, undefined],
    ['another error', new MeshError('rate_limited'), 'github', jwt, undefined],
    ['no issuers', missing, 'github', { ...open, policy: plain }, 'Bearer realm="mcp-mesh"'],
    [
      'no issuers, wrong key',
      new AuthenticationError('bad_key', 'x'),
      'github',
      { ...open, policy: plain },
      'Bearer realm="mcp-mesh", error="invalid_token"',
    ],
    [
      'no policy',
      new AuthenticationError('no_policy', 'x'),
      'github',
      { publicUrl: PUBLIC, policy: undefined },
      'Bearer realm="mcp-mesh"',
    ],
    ['no public URL', missing, 'github', { publicUrl: undefined, policy: oauth }, 'Bearer realm="mcp-mesh"'],
    [
      'roles as scopes: the first that lets in',
      missing,
      'github',
      { ...open, policy: scoped },
      `Bearer resource_metadata="${METADATA}/github", scope="developer"`,
    ],
    [
      'roles as scopes, 403',
      forbidden,
      'files',
      { ...jwt, policy: scoped },
      `Bearer resource_metadata="${METADATA}/files", error="insufficient_scope", scope="none"`,
    ],
    [
      'never offline_access or what is no scope',
      missing,
      'vault',
      {
        ...open,
        policy: policyOf(scoped.issuers, {
          offline_access: role([{ service: 'vault' }]),
          'no "scope"': role([{ service: 'vault' }]),
        }),
      },
      `Bearer resource_metadata="${METADATA}/vault"`,
    ],
    [
      'public URL with a path',
      missing,
      'github',
      { ...open, publicUrl: 'https://example.com/gateway/' },
      `Bearer resource_metadata="https://example.com${WELL_KNOWN}/gateway/api/v1/mcp/github"`,
    ],
  ];
  for (const [desc, error, service, options, value] of cases) {
    test(desc, () => assert.equal(challenge(error, service, options), value));
  }

  const hostile = [
    'x"\r\nset-cookie: a=b',
    'a", error="insufficient_scope',
    '../../etc',
    'ä',
    '\u2028',
    'GitHub',
    '',
  ];
  for (const service of hostile) {
    test(`the service ${JSON.stringify(service)} is left out`, () => {
      assert.equal(challenge(missing, service, open), `Bearer resource_metadata="${METADATA}"`);
      assert.equal(resourceMetadata(oauth, PUBLIC, service)?.resource, `${PUBLIC}/api/v1/mcp`);
    });
  }

  test('nothing of the configuration ends the header or its quotes', () => {
    for (const publicUrl of [
      'https://mesh.example.com/a"b\\c',
      'https://mesh.example.com/ä\r\nx: y',
      'https://bücher.example',
    ]) {
      const value = challenge(missing, 'github', { ...open, publicUrl });
      assert.ok(value);
      validateHeaderValue('www-authenticate', value);
      assert.match(value, /^Bearer resource_metadata="(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"$/);
    }
  });
});

describe('protected resource metadata (RFC 9728)', () => {
  test('names the service, its issuers and how a token is sent', () => {
    assert.deepEqual(resourceMetadata(policyOf([issuer, issuer]), PUBLIC, 'github'), {
      resource: 'https://mesh.example.com/api/v1/mcp/github',
      authorization_servers: ['https://idp.example.com'],
      bearer_methods_supported: ['header'],
      resource_name: 'github',
    });
  });

  test('lists roles as scopes when the claim is one of scopes', () => {
    assert.deepEqual(resourceMetadata(scoped, PUBLIC, 'github')?.scopes_supported, [
      'none',
      'developer',
      'admin',
    ]);
  });

  test('is the same for a service that no role knows', () => {
    const { resource: _known, resource_name: _name, ...known } = resourceMetadata(scoped, PUBLIC, 'github')!;
    const {
      resource: _other,
      resource_name: _none,
      ...unknown
    } = resourceMetadata(scoped, PUBLIC, 'nonesuch')!;
    assert.deepEqual(known, unknown);
  });

  test('is absent without issuers, and without a policy', () => {
    assert.equal(resourceMetadata(plain, PUBLIC, 'github'), undefined);
    assert.equal(resourceMetadata(undefined, PUBLIC, 'github'), undefined);
  });

  test('canonical URIs have neither trailing slash nor query', () => {
    assert.equal(resourceUri('https://Mesh.Example.com:443/?a=b#c', 'github'), `${PUBLIC}/api/v1/mcp/github`);
    assert.equal(resourceUri('https://mesh.example.com/x/', undefined), `${PUBLIC}/x/api/v1/mcp`);
  });

  test('an MCP client finds its issuer from a 401, and by the well-known path alone', async t => {
    const server = createServer((request, response) => {
      const { port } = server.address() as AddressInfo;
      const publicUrl = `http://127.0.0.1:${port}`;
      const service = /^\/\.well-known\/oauth-protected-resource\/api\/v1\/mcp\/([^/]+)$/.exec(
        String(request.url),
      )?.[1];
      if (service !== undefined) {
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify(resourceMetadata(scoped, publicUrl, service)));
        return;
      }
      const value = challenge(new AuthenticationError('no_credential', 'x'), 'github', {
        publicUrl,
        policy: scoped,
      });
      response.writeHead(401, { 'www-authenticate': String(value) }).end();
    });
    await new Promise<void>(resolve => void server.listen(0, '127.0.0.1', resolve));
    t.after(() => server.close().closeAllConnections());
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/api/v1/mcp/github`;
    const { resourceMetadataUrl, scope } = extractWWWAuthenticateParams(await fetch(url, { method: 'POST' }));
    assert.equal(scope, 'developer');
    assert.ok(resourceMetadataUrl);
    for (const options of [{ resourceMetadataUrl }, {}]) {
      const metadata = await discoverOAuthProtectedResourceMetadata(url, options);
      assert.deepEqual(metadata.authorization_servers, ['https://idp.example.com']);
      assert.ok(checkResourceAllowed({ requestedResource: url, configuredResource: metadata.resource }));
    }
  });
});

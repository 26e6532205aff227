import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { givenMesh } from './given-mesh.ts';
import { ROOT } from './mesh-process.ts';

/** What only a real Kong and a real Consul can show; the calls themselves are those of call.test.ts. */

const given = givenMesh();
const url = given?.url ?? '';

const noKong = given
  ? false
  : 'no KONG_URL: the stand-in has no Admin API, and runs no plugins of Kong’s own';
const noAdmin = noKong || (given?.adminUrl ? false : 'no KONG_ADMIN_URL');
const noConsul = noKong || (given?.consulUrl ? false : 'no CONSUL_HTTP_ADDR');

interface Plugin {
  name: string;
  enabled: boolean;
  config: { access?: string[] };
}

describe('a given Kong', () => {
  test('is Kong 3.9 or newer with the plugins of kong.yml, their Lua included', {
    skip: noAdmin,
  }, async () => {
    const file = parse(readFileSync(join(ROOT, 'kong/kong.yml'), 'utf8'));
    const { data } = (await read(`${given?.adminUrl}/plugins?size=100`)) as { data: Plugin[] };
    const wanted: Plugin[] = [...file.plugins, ...file.services[0].plugins];
    for (const { name, enabled = true, config } of wanted) {
      const found = data.find(plugin => plugin.name === name);
      assert.equal(found?.enabled, enabled, name);
      if (name.endsWith('-function')) assert.deepEqual(found?.config.access, config.access, name);
    }
    const headers = (await fetch(`${given?.adminUrl}/status`)).headers.get('server') ?? '';
    assert.match(headers, /kong\/(3\.(9|\d\d)|[4-9])/);
  });

  test('answers a page’s preflight, and shows it MCP’s headers', { skip: noKong }, async () => {
    const origin = 'http://localhost:6274';
    const asked = {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'mcp-method',
    };
    const { status, headers } = await fetch(`${url}/api/v1/mcp/everything`, {
      method: 'OPTIONS',
      headers: asked,
    });
    assert.deepEqual([status, headers.get('access-control-allow-origin')], [200, origin]);
    assert.match(headers.get('access-control-allow-headers') ?? '', /mcp-method/i);
    const answer = await fetch(`${url}/api/v1/mcp/everything/tools`, { headers: { origin } });
    assert.match(answer.headers.get('access-control-expose-headers') ?? '', /mcp-session-id/i);
    const foreign = await fetch(`${url}/api/v1/mcp/everything/tools`, {
      headers: { origin: 'http://evil.example' },
    });
    assert.equal(foreign.headers.get('access-control-allow-origin'), null);
  });

  test('gives each answer a correlation id, and takes off what it should', { skip: noKong }, async () => {
    const { headers } = await fetch(`${url}/api/v1/mcp/everything/tools`);
    assert.match(headers.get('x-correlation-id') ?? '', /^[0-9a-f-]{36}/);
    assert.equal(headers.get('x-content-type-options'), 'nosniff');
    assert.equal(headers.get('x-powered-by'), null);
    assert.equal(headers.get('endpoint-load-metrics'), null);
  });

  test('refuses a body beyond its limit while it comes, with and without a length', {
    skip: noKong,
  }, async () => {
    const body = () => new Uint8Array(17 * 1024 * 1024);
    const send = (init: object) =>
      fetch(`${url}/api/v1/mcp/everything/execute`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        ...init,
      }).then(
        ({ status }) => status,
        () => 'the connection was closed',
      );
    assert.ok([413, 'the connection was closed'].includes(await send({ body: body() })));
    const stream = new Blob([body()]).stream();
    assert.ok([413, 'the connection was closed'].includes(await send({ body: stream, duplex: 'half' })));
  });
});

test('instances are in the given Consul, at addresses that others reach', { skip: noConsul }, async () => {
  const status = (await read(`${url}/api/v1/mcp/everything/status`)) as {
    details: { id: string; address: string }[];
  };
  const entries = (await read(`${given?.consulUrl}/v1/health/service/mcp-everything?passing`)) as {
    Service: { ID: string; Address: string; Port: number };
  }[];
  assert.deepEqual(
    entries.map(({ Service }) => Service.ID).toSorted(),
    status.details.map(({ id }) => id).toSorted(),
  );
  for (const { Service } of entries) assert.ok(isIP(Service.Address) && !Service.Address.startsWith('127.'));
});

async function read(address: string): Promise<unknown> {
  const response = await fetch(address);
  assert.equal(response.status, 200, address);
  return response.json();
}

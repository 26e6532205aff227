import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { WELL_KNOWN } from '../../kong-plugin/resource-metadata.ts';
import { parseRoute } from '../../kong-plugin/route.ts';
import type { MeshError } from '../../mesh/errors.ts';

const worker = (path: string, rpc = false) => ({ to: 'worker', service: 'github', path, rpc });

describe('a path is either known or answered with what there is', () => {
  const cases: { method?: string; path: string; want: object | string }[] = [
    { method: 'GET', path: '/api/v1/mcp', want: { to: 'list' } },
    { method: 'GET', path: '/api/v1/mcp/', want: { to: 'list' } },
    { path: '/api/v1/mcp/github', want: worker('/mcp', true) },
    { path: '/api/v1/mcp/github/', want: worker('/mcp', true) },
    { path: '/api/v1/mcp/github/mcp', want: worker('/mcp', true) },
    { method: 'GET', path: '/api/v1/mcp/github', want: worker('/mcp', true) },
    { method: 'DELETE', path: '/api/v1/mcp/github', want: worker('/mcp', true) },
    { path: '/api/v1/mcp/github/execute', want: worker('/execute') },
    { method: 'GET', path: '/api/v1/mcp/github/tools', want: worker('/tools') },
    { method: 'HEAD', path: '/api/v1/mcp/github/tools', want: worker('/tools') },
    { method: 'GET', path: '/api/v1/mcp/github/openapi.json', want: worker('/openapi.json') },
    { method: 'HEAD', path: '/api/v1/mcp/github/openapi.json', want: worker('/openapi.json') },
    { path: '/api/v1/mcp/github/tools/a%2Fb', want: worker('/tools/a%2Fb') },
    { method: 'GET', path: '/api/v1/mcp/github/status', want: { to: 'status', service: 'github' } },
    { method: 'PUT', path: '/api/v1/mcp/github', want: 'method_not_allowed' },
    { method: 'GET', path: '/api/v1/mcp/github/execute', want: 'method_not_allowed' },
    { path: '/api/v1/mcp/github/openapi.json', want: 'method_not_allowed' },
    { path: '/api/v1/mcp/github/exceute', want: 'unknown_path' },
    { path: '/api/v1/mcp/github/metrics', want: 'unknown_path' },
    { path: '/api/v1/mcp/github/health', want: 'unknown_path' },
    { path: '/api/v1/mcp/github/tools/a/b', want: 'unknown_path' },
    { path: '/api/v1/mcp/github/execute/x', want: 'unknown_path' },
    { path: '/api/v1/mcpx/github', want: 'unknown_path' },
    { path: '/api/v1/mesh/v2/register', want: { to: 'mesh' } },
    { path: '/api/v1/meshx', want: 'unknown_path' },
    { path: '/', want: 'unknown_path' },
    { method: 'GET', path: WELL_KNOWN, want: { to: 'metadata', service: undefined } },
    { method: 'GET', path: `${WELL_KNOWN}/api/v1/mcp`, want: { to: 'metadata', service: undefined } },
    { method: 'GET', path: `${WELL_KNOWN}/api/v1/mcp/github`, want: { to: 'metadata', service: 'github' } },
    { method: 'GET', path: `${WELL_KNOWN}/api/v1/mcp/github/tools`, want: 'unknown_path' },
    { method: 'GET', path: `${WELL_KNOWN}x`, want: 'unknown_path' },
    { path: `${WELL_KNOWN}/api/v1/mcp/github`, want: 'method_not_allowed' },
    { path: '/api/v1/mcp/GitHub', want: 'unknown_service' },
    { path: '/api/v1/mcp/../x', want: 'unknown_service' },
    { path: '/api/v1/mcp//execute', want: 'unknown_service' },
    { path: '/api/v1/mcp/%67ithub', want: 'unknown_service' },
    { path: `/api/v1/mcp/${'a'.repeat(64)}`, want: 'unknown_service' },
  ];
  for (const { method = 'POST', path, want } of cases) {
    test(`${method} ${path.slice(0, 60)}`, () => {
      if (typeof want === 'object') assert.deepEqual(parseRoute(method, path), want);
      else
        assert.throws(
          () => parseRoute(method, path),
          (error: MeshError) => error.code === want,
        );
    });
  }
});

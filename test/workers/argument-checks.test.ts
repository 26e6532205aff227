import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { MeshError } from '../../mesh/errors.ts';
import { type JsonObject, type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import { ArgumentChecks } from '../../workers/arguments/checks.ts';
import { toolCall } from './helpers.ts';

function checksBy(schemas: Record<string, JsonObject>) {
  const lines: object[] = [];
  const checks = new ArgumentChecks({
    log: { warn: (line: object) => lines.push(line) } as never,
    schemaOf: async (_upstream, tool) => schemas[tool],
    checkMs: 20,
  });
  const check = (tool: string, args: object) =>
    checks.check({}, readMessage(JSON.stringify(toolCall(1, tool, args))) as RpcRequest);
  return { lines, check };
}

test('a schema that cannot be used is told once, with the reason, and nothing is fetched for it', async t => {
  let fetched = 0;
  const server = createServer((_request, response) => {
    fetched += 1;
    response.end('{}');
  }).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const $ref = `http://127.0.0.1:${(server.address() as AddressInfo).port}/schema.json`;
  const { lines, check } = checksBy({ remote: { $ref } });
  for (let i = 0; i < 3; i += 1) await check('remote', {});
  assert.deepEqual(lines, [{ tool: 'remote', reason: `can't resolve reference ${$ref} from id #` }]);
  assert.equal(fetched, 0);
});

test('a check that took too long is told once a minute', async () => {
  const { lines, check } = checksBy({ slow: { properties: { s: { pattern: '^(a+)+$' } } } });
  for (let i = 0; i < 3; i += 1) await check('slow', { s: `${'a'.repeat(60)}!` });
  assert.equal(lines.length, 1);
  assert.match(JSON.stringify(lines), /Script execution timed out/);
});

test('ids of one tool’s schema are not another’s', async () => {
  const { lines, check } = checksBy({
    one: {
      $id: 'https://example.com/item',
      type: 'object',
      required: ['a'],
      $defs: { x: { $id: 'x', type: 'string' } },
    },
    other: { $id: 'https://example.com/item', type: 'object', required: ['b'] },
    meta: {
      $defs: { x: { $id: 'https://json-schema.org/draft/2020-12/schema', type: 'string' } },
      required: ['c'],
    },
    later: { type: 'object', required: ['d'] },
  });
  for (const [tool, pointer] of [
    ['one', '/a'],
    ['other', '/b'],
    ['later', '/d'],
  ] as const) {
    await assert.rejects(check(tool, {}), (error: MeshError) => error.errors?.[0]?.pointer === pointer);
    await check('meta', { c: 1 });
  }
  assert.ok(
    lines.every(line => 'tool' in line && line.tool === 'meta'),
    JSON.stringify(lines),
  );
});

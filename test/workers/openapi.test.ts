import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ERROR_CODES } from '../../mesh/errors.ts';
import { identityOf, makeKeys, policyOf, workerKeys } from '../security/keys.ts';
import { readAnswer, ready, scriptedService, startTestWorker } from './helpers.ts';
import type { Json } from './hostile/helpers.ts';
import { listedService, startListed } from './listed.ts';
import { at, documentOf, operationsOf, requireValid } from './openapi-helpers.ts';

const OBJECT = { type: 'object' };
const keys = makeKeys();

describe('the document', () => {
  test('has an operation for each tool, of all pages of the list', async t => {
    const tools = Array.from({ length: 7 }, (_, i) => ({ name: `tool-${i}`, inputSchema: OBJECT }));
    const worker = await startListed(t, tools, { PAGE: '3' });
    const document = await documentOf(worker);
    await requireValid(document);
    assert.deepEqual(
      Object.keys(document.paths),
      tools.map(({ name }) => `/tools/${name}`),
    );
    assert.deepEqual(
      [document.openapi, document.info.title, document.info.version],
      ['3.1.0', 'listed', '4.5.6'],
    );
    assert.deepEqual(document, await documentOf(worker), 'from the cache it is the same');
  });

  for (const ERA of ['legacy', 'modern'] as const) {
    test(`says of a tool what the tool says of itself: ${ERA} server`, async t => {
      const tool = {
        name: 'sum',
        title: 'Add up',
        description: 'Adds numbers.',
        inputSchema: { type: 'object', properties: { a: { type: 'number' } }, required: ['a'] },
        outputSchema: { type: 'object', properties: { sum: { type: 'number' } } },
        annotations: { readOnlyHint: true },
      };
      const document = await documentOf(
        await startListed(t, [tool, { name: 'now', inputSchema: OBJECT }], { ERA }),
      );
      await requireValid(document);
      const { post } = document.paths['/tools/sum'];
      const { operationId, summary, description } = post;
      assert.deepEqual([operationId, summary, description], ['sum', 'Add up', 'Adds numbers.']);
      assert.deepEqual([post['x-mcp-tool'], post['x-mcp-annotations']], ['sum', tool.annotations]);
      assert.deepEqual(
        [post.requestBody.required, document.paths['/tools/now'].post.requestBody.required],
        [true, false],
      );
      const body = post.requestBody.content['application/json'].schema;
      assert.deepEqual(at(document, body.$ref), tool.inputSchema);
      const [result, { properties }] = post.responses[200].content['application/json'].schema.allOf;
      assert.deepEqual(at(document, result.$ref).required, ['content']);
      assert.deepEqual(at(document, properties.structuredContent.$ref), tool.outputSchema);
    });
  }

  test('names every error that a call may get, by its status', async t => {
    const document = await documentOf(await startListed(t, [{ name: 'x', inputSchema: OBJECT }]));
    const { responses } = document.paths['/tools/x'].post;
    const codes: string[] = document.components.schemas.Problem.properties.code.enum;
    assert.ok(codes.every(code => (ERROR_CODES as string[]).includes(code)) && codes.length > 15);
    for (const code of codes) {
      const found = Object.values<Json>(responses).filter(
        ({ $ref }) => $ref && at(document, $ref).description.includes(`\`${code}\``),
      );
      assert.equal(found.length, 1, code);
    }
    const problem = at(document, responses[422].$ref).content['application/problem+json'].schema;
    assert.equal(problem.$ref, '#/components/schemas/Problem');
  });

  test('has only what its caller may use, whoever asked before', async t => {
    const tools = ['get_a', 'get_b', 'put_a'].map(name => ({ name, inputSchema: OBJECT }));
    const worker = await startTestWorker(t, listedService(tools), workerKeys(keys, 'listed'));
    await ready(worker);
    const policy = policyOf({
      roles: {
        all: { allow: [{ service: 'listed' }] },
        some: {
          allow: [{ service: 'listed', tools: ['get_*'] }],
          deny: [{ service: 'listed', tools: ['get_b'] }],
        },
      },
    });
    const as = (...roles: string[]) => identityOf(keys, { service: 'listed', policy, roles });
    const paths = async (identity: Record<string, string>) =>
      Object.keys((await documentOf(worker, identity)).paths);
    for (let i = 0; i < 2; i += 1) {
      assert.deepEqual(await paths(as('all')), ['/tools/get_a', '/tools/get_b', '/tools/put_a']);
      assert.deepEqual(await paths(as('some')), ['/tools/get_a']);
    }
    assert.equal((await fetch(`${worker.url}/openapi.json`)).status, 401);
  });

  test('leads its reader to where it came from', async t => {
    const worker = await startListed(t, [{ name: 'a/b c', inputSchema: OBJECT }]);
    const direct = await documentOf(worker);
    const [path = ''] = Object.keys(direct.paths);
    const answer = await worker.post(new URL(`${direct.servers[0].url}${path}`).pathname, {});
    assert.equal(answer.status, 200, answer.text);
    const { servers } = await documentOf(worker, { 'x-mesh-identity': 'the gateway sends one' });
    const { pathname } = new URL(
      servers[0].url,
      'https://mesh.example/prefix/api/v1/mcp/listed/openapi.json',
    );
    assert.equal(pathname, '/prefix/api/v1/mcp/listed');
    assert.deepEqual(direct.security, [{ bearer: [] }, { apiKey: [] }, {}]);
  });

  test('of a server that is down is an error as any other', async t => {
    const worker = await startTestWorker(t, scriptedService('die'));
    const { status, json } = await readAnswer(await fetch(`${worker.url}/openapi.json`));
    assert.deepEqual([status, json.code], [503, 'child_unavailable']);
  });
});

describe('names', () => {
  test('that are no names of functions become such, each another', async t => {
    const names = [
      'get-sum',
      'get.sum',
      'get_sum',
      'get_sum_2',
      '2fast',
      'prüfen',
      'a/b',
      'x{y}',
      '__proto__',
      'constructor',
    ];
    const { ids } = await operationsOf(
      t,
      names.map(name => ({ name, inputSchema: OBJECT })),
    );
    assert.equal(Object.keys(ids).length, names.length);
    assert.equal(new Set(Object.values(ids)).size, names.length);
    for (const id of Object.values(ids)) assert.match(id, /^[A-Za-z_][A-Za-z0-9_]*$/);
    assert.deepEqual([ids['/tools/get-sum'], ids['/tools/get.sum']], ['get_sum', 'get_sum_2']);
    assert.ok('/tools/x%7By%7D' in ids);
  });

  test('that no path can say, and tools that are none, are left out', async t => {
    const tools = [
      ...['', '.', '..', '\ud800'].map(name => ({ name })),
      {},
      { name: 7 },
      { name: 'x' },
      { name: 'x' },
    ];
    const { ids } = await operationsOf(t, tools);
    assert.deepEqual(ids, { '/tools/x': 'x' });
  });
});

test('a list without an end is an error', async t => {
  const tools = Array.from({ length: 150 }, (_, i) => ({ name: `t${i}`, inputSchema: OBJECT }));
  const worker = await startListed(t, tools, { PAGE: '1' });
  const { status, json } = await readAnswer(await fetch(`${worker.url}/openapi.json`));
  assert.deepEqual([status, json.code], [502, 'server_error']);
});

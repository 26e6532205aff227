import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { MODERN_VERSION } from '../../mesh/eras.ts';
import { until } from '../until.ts';
import { type Answer, type TestWorker, toolCall } from './helpers.ts';
import { MODERN_META } from './hostile/helpers.ts';
import { startListed } from './listed.ts';

const BOOKING = {
  type: 'object',
  properties: {
    seats: { type: 'integer', minimum: 1 },
    class: { enum: ['first', 'second'] },
    trip: { $ref: '#/$defs/trip' },
  },
  required: ['seats'],
  additionalProperties: false,
  $defs: { trip: { type: 'object', properties: { 'from/to': { type: 'string', format: 'date' } } } },
};
const WRONG = { class: 'third', seat: 1, trip: { 'from/to': 'today' } };
const FAULTS = [
  { pointer: '/seats', detail: 'is missing' },
  { pointer: '/seat', detail: 'is not allowed here' },
  { pointer: '/class', detail: 'must be one of "first", "second"' },
  { pointer: '/trip/from~1to', detail: 'must match format "date"' },
];
const checked = { validate_arguments: true };
const tool = (name: string, inputSchema: object) => ({ name, inputSchema });
const start = (t: TestContext, inputSchema: object, ERA: 'legacy' | 'modern' = 'legacy') =>
  startListed(t, [tool('book', inputSchema), tool('relist', {})], { ERA }, checked);
/** What the server says of a call that reached it. */
const seen = ({ json, text }: Answer) => {
  assert.ok(json?.content, text);
  return JSON.parse(json.content[0].text) as { calls: number; line: string };
};
const postModern = (worker: TestWorker, args: object) =>
  worker.post(
    '/mcp',
    { ...toolCall(1, 'book', args, MODERN_META) },
    { 'mcp-protocol-version': MODERN_VERSION, 'mcp-method': 'tools/call', 'mcp-name': 'book' },
  );

describe('arguments that do not fit', () => {
  for (const era of ['legacy', 'modern'] as const) {
    test(`never reach the server, and REST names each fault by its place: ${era} server`, async t => {
      const worker = await start(t, BOOKING, era);
      for (const answer of [
        await worker.post('/tools/book', WRONG),
        await worker.post('/execute', { command: 'book', params: WRONG }),
        await worker.post('/execute', { command: 'tools/call', params: { name: 'book', arguments: WRONG } }),
      ]) {
        const { status, json, headers } = answer;
        assert.deepEqual([status, json.code, json.delivered], [422, 'invalid_arguments', 'no'], answer.text);
        assert.match(headers.get('content-type') ?? '', /^application\/problem\+json/);
        assert.deepEqual(json.errors, FAULTS);
        assert.match(json.detail, /^\/seats is missing; .*, and 1 more$/);
      }
      assert.equal(seen(await worker.post('/tools/book', { seats: 2 })).calls, 1);
    });

    test(`are told to MCP clients as the result of a tool that failed: ${era} server`, async t => {
      const worker = await start(t, BOOKING, era);
      const call = await worker.connect();
      const old = await call(toolCall('a', 'book', WRONG));
      const now = await postModern(worker, WRONG);
      assert.deepEqual([old.json.id, 'resultType' in old.json.result], ['a', false]);
      assert.deepEqual([now.json.id, now.json.result.resultType], [1, 'complete']);
      for (const { status, json } of [old, now]) {
        assert.deepEqual([status, json.error, json.result.isError], [200, undefined, true]);
        assert.match(json.result.content[0].text, /^Invalid arguments.*\n\/seats: is missing\n/);
        assert.deepEqual(json.result._meta['mcp-mesh/error'].errors, FAULTS);
      }
      assert.equal(seen(await worker.post('/tools/book', { seats: 2 })).calls, 1);
      assert.equal((await postModern(worker, { seats: 2 })).json.result.isError, undefined);
    });
  }

  test('pass where nobody asked for the check', async t => {
    const worker = await startListed(t, [tool('book', BOOKING)]);
    assert.equal(seen(await worker.post('/tools/book', WRONG)).calls, 1);
  });

  test('are many: a caller gets the first twenty, cut where names are endless', async t => {
    const worker = await start(t, { ...BOOKING, properties: {} });
    const many = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`n${i}`, i]));
    const { json } = await worker.post('/tools/book', many);
    assert.equal(json.errors.length, 20);
    assert.match(json.detail, /and 98 more$/);
    const long = await worker.post('/tools/book', { ['n'.repeat(100_000)]: 1, seats: 1 });
    assert.equal(long.status, 422);
    assert.ok(long.text.length < 3000, `${long.text.length} characters`);
  });
});

describe('what fits, or cannot be told not to, passes', () => {
  const passing: { desc: string; schema: object; args: string }[] = [
    {
      desc: 'integers beyond 2^53, as they were written',
      schema: { properties: { n: { type: 'integer' } } },
      args: '{"n":12345678901234567890}',
    },
    { desc: 'fractions', schema: { properties: { n: { multipleOf: 0.01 } } }, args: '{"n":0.07}' },
    {
      desc: 'draft-07 where the schema says so',
      schema: {
        $schema: 'http://json-schema.org/draft-07/schema#',
        properties: { l: { items: [{ type: 'string' }] } },
      },
      args: '{"l":["a",1]}',
    },
    {
      desc: 'a schema of a dialect that is not known',
      schema: { $schema: 'http://json-schema.org/draft-04/schema#', required: ['x'] },
      args: '{}',
    },
    { desc: 'a schema that is none', schema: { type: 'objekt' }, args: '{}' },
    { desc: 'a schema whose reference leads nowhere', schema: { $ref: '#/$defs/gone' }, args: '{}' },
    { desc: 'a schema that is itself', schema: { $ref: '#' }, args: '{}' },
    {
      desc: 'a schema whose reference leads elsewhere',
      schema: { $ref: 'http://127.0.0.1:9/schema.json' },
      args: '{}',
    },
    {
      desc: 'a schema that would have to be waited for',
      schema: { $async: true, required: ['x'] },
      args: '{}',
    },
    {
      desc: 'a pattern that no engine reads',
      schema: { properties: { s: { pattern: '(' } } },
      args: '{"s":"x"}',
    },
  ];
  for (const { desc, schema, args } of passing) {
    test(desc, async t => {
      const worker = await start(t, schema);
      const { line } = seen(await worker.post('/tools/book', args));
      assert.ok(line.includes(`"arguments":${args}`), line);
    });
  }

  const refused: { desc: string; schema: object; args: object; pointer: string }[] = [
    {
      desc: 'but not draft-07 that does not fit',
      schema: {
        $schema: 'http://json-schema.org/draft-07/schema#',
        properties: { l: { items: [{ type: 'string' }] } },
      },
      args: { l: [1] },
      pointer: '/l/0',
    },
    {
      desc: 'but not a member that every object seems to have',
      schema: { required: ['constructor'] },
      args: {},
      pointer: '/constructor',
    },
    {
      desc: 'but not what a pattern without the u flag refuses',
      schema: { properties: { s: { pattern: '^[\\w-.]+$' } } },
      args: { s: '!' },
      pointer: '/s',
    },
  ];
  for (const { desc, schema, args, pointer } of refused) {
    test(desc, async t => {
      const worker = await start(t, schema);
      const { status, json, text } = await worker.post('/tools/book', args);
      assert.deepEqual([status, json.errors?.[0].pointer], [422, pointer], text);
    });
  }
});

describe('a check that would not end', () => {
  const cases = [
    {
      desc: 'a pattern that backtracks',
      schema: { properties: { s: { pattern: '^(a+)+$' } } },
      hard: { s: `${'a'.repeat(60)}!` },
    },
    {
      desc: 'items that are compared in pairs',
      schema: { properties: { s: { uniqueItems: true } } },
      hard: { s: Array.from({ length: 200_000 }, (_, i) => ({ i })) },
    },
    {
      desc: 'recursion that branches',
      schema: {
        $defs: {
          n: { anyOf: ['a', 'b'].map(() => ({ properties: { n: { $ref: '#/$defs/n' } }, required: ['n'] })) },
        },
        $ref: '#/$defs/n',
      },
      hard: nested(40),
    },
  ];
  for (const { desc, schema, hard } of cases) {
    test(`is broken off, and the call passes: ${desc}`, async t => {
      const worker = await start(t, { ...schema, ...{ type: 'object' }, required: ['x'] });
      assert.equal((await worker.post('/tools/book', {})).status, 422, 'an easy call is checked');
      assert.equal(seen(await worker.post('/tools/book', { ...hard, x: 1 })).calls, 1);
      assert.equal(
        seen(await worker.post('/tools/book', {})).calls,
        2,
        'the schema is left alone for a while',
      );
    });
  }
});

test('a schema that is too large to compile is left alone', async t => {
  const worker = await start(t, BOOKING);
  const large = tool('large', { required: ['x'], description: 'x'.repeat(500_000) });
  await worker.post('/tools/relist', { tools: [large, tool('small', { required: ['x'] })] });
  await until('the new schemas', async () => (await worker.post('/tools/small', {})).status === 422);
  assert.equal(seen(await worker.post('/tools/large', {})).calls > 1, true);
});

test('a list that changed brings its new schemas', async t => {
  const worker = await start(t, BOOKING);
  assert.equal((await worker.post('/tools/book', {})).status, 422);
  const tools = [tool('book', { type: 'object', required: ['name'] })];
  await worker.post('/tools/relist', { tools });
  await until('the new schema', async () => {
    const { status, json } = await worker.post('/tools/book', { seats: 1 });
    return status === 422 && json.errors[0].pointer === '/name';
  });
});

function nested(depth: number): object {
  return depth === 0 ? {} : { n: nested(depth - 1) };
}

import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import type { Json } from './hostile/helpers.ts';
import { operationsOf, refsIn } from './openapi-helpers.ts';

const OBJECT = { type: 'object' };

async function argumentsOf(t: TestContext, inputSchema: object): Promise<Json> {
  const { document } = await operationsOf(t, [{ name: 'x', inputSchema }]);
  return document.components.schemas.x_arguments;
}

describe('references inside a schema', () => {
  const cases: { desc: string; schema: object; path: string[]; want: string }[] = [
    {
      desc: 'by pointer',
      schema: { $defs: { 'a/b': OBJECT }, properties: { p: { $ref: '#/$defs/a~1b' } } },
      path: ['properties', 'p'],
      want: '/$defs/a~1b',
    },
    {
      desc: 'by pointer, percent-encoded',
      schema: { $defs: { 'a b': OBJECT }, properties: { p: { $ref: '#/$defs/a%20b' } } },
      path: ['properties', 'p'],
      want: '/$defs/a%20b',
    },
    {
      desc: 'to the whole',
      schema: { properties: { p: { $ref: '#' } } },
      path: ['properties', 'p'],
      want: '',
    },
    {
      desc: 'by anchor',
      schema: { $defs: { d: { $anchor: 'here' } }, properties: { p: { $ref: '#here' } } },
      path: ['properties', 'p'],
      want: '/$defs/d',
    },
    {
      desc: 'dynamic',
      schema: { $dynamicAnchor: 'node', properties: { p: { $dynamicRef: '#node' } } },
      path: ['properties', 'p'],
      want: '',
    },
    {
      desc: 'below an $id',
      schema: {
        $id: 'https://example.com/root.json',
        $defs: { d: OBJECT },
        properties: { p: { $ref: 'root.json#/$defs/d' } },
      },
      path: ['properties', 'p'],
      want: '/$defs/d',
    },
    {
      desc: 'to an $id',
      schema: {
        $id: 'https://example.com/root.json',
        $defs: { d: { $id: 'item.json', properties: { q: { $ref: '#/properties/r' }, r: OBJECT } } },
        properties: { p: { $ref: 'item.json' } },
      },
      path: ['properties', 'p'],
      want: '/$defs/d',
    },
    {
      desc: 'within an $id',
      schema: {
        $defs: { d: { $id: 'item.json', properties: { q: { $ref: '#/properties/r' }, r: OBJECT } } },
      },
      path: ['$defs', 'd', 'properties', 'q'],
      want: '/$defs/d/properties/r',
    },
    {
      desc: 'of draft-07',
      schema: {
        $schema: 'http://json-schema.org/draft-07/schema#',
        definitions: { d: { $id: '#d' } },
        properties: { p: { $ref: '#d' } },
      },
      path: ['properties', 'p'],
      want: '/definitions/d',
    },
    {
      desc: 'into a list of draft-07',
      schema: { properties: { l: { items: [OBJECT], additionalItems: { $ref: '#/properties/l/items/0' } } } },
      path: ['properties', 'l', 'items'],
      want: '/properties/l/prefixItems/0',
    },
    {
      desc: 'into dependencies of draft-07',
      schema: { dependencies: { a: ['b'], c: OBJECT }, properties: { p: { $ref: '#/dependencies/c' } } },
      path: ['properties', 'p'],
      want: '/dependentSchemas/c',
    },
  ];
  for (const { desc, schema, path, want } of cases) {
    test(`${desc} lead to the same place in the document`, async t => {
      const embedded = await argumentsOf(t, schema);
      const node = path.reduce((value, key) => value[key], embedded);
      assert.deepEqual(node, { $ref: `#/components/schemas/x_arguments${want}` });
    });
  }

  test('that lead out of it, or nowhere, are told and not followed', async t => {
    const properties = Object.fromEntries(
      ['https://example.com/a.json', '#/gone', '../execute', 'http://[', '#%zz'].map(($ref, i) => [
        `p${i}`,
        { $ref },
      ]),
    );
    const embedded = await argumentsOf(t, { properties });
    assert.deepEqual(refsIn(embedded), []);
    assert.equal(embedded.properties.p0['x-unresolved-ref'], 'https://example.com/a.json');
  });

  test('are not looked for in data, nor in the names of members', async t => {
    const schema = {
      type: 'object',
      properties: {
        $ref: { type: 'string' },
        $id: { const: { $id: 'x' } },
        __proto__: OBJECT,
      },
      default: { ref: '#/gone' },
      examples: [{ $schema: 'x' }],
    };
    assert.deepEqual(await argumentsOf(t, schema), schema);
  });

  test('are not left where a reader may take data for one', async t => {
    const looks = { $ref: 'http://127.0.0.1:9/fetched' };
    const properties = { p: { default: looks, examples: [looks], const: { deep: [looks] }, 'x-any': looks } };
    const inputSchema = { properties, items: 'no schema', allOf: looks, $defs: [looks] };
    const { document } = await operationsOf(t, [{ name: 'x', inputSchema, annotations: { any: looks } }]);
    assert.ok(!JSON.stringify(document).includes('fetched'));
  });

  test('names of resources and dialects are gone, and what is too deep is cut', async t => {
    const deep = Array.from({ length: 1000 }).reduce<object>(items => ({ items }), OBJECT);
    const embedded = await argumentsOf(t, {
      $schema: 'http://json-schema.org/draft-07/schema#',
      $id: 'x',
      properties: { deep },
    });
    assert.deepEqual(Object.keys(embedded), ['properties']);
    assert.ok(JSON.stringify(embedded).length < 1000);
  });
});

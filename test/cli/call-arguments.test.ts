import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { buildArguments } from '../../cli/call/arguments.ts';
import { readEvents, type StreamEvent } from '../../cli/call/events.ts';

const SCHEMA = {
  type: 'object',
  properties: {
    text: { type: 'string' },
    count: { type: 'integer' },
    share: { type: 'number' },
    loud: { type: 'boolean' },
    tags: { type: 'array', items: { type: 'string' } },
    sizes: { type: 'array', items: { type: 'integer' } },
    where: { $ref: '#/$defs/place' },
    level: { enum: ['low', 'high'] },
    maybe: { anyOf: [{ type: 'integer' }, { type: 'null' }] },
    either: { type: ['string', 'integer'] },
    'dotted.name': { type: 'integer' },
    any: {},
  },
  $defs: {
    place: {
      type: 'object',
      properties: { city: { type: 'string' }, at: { $ref: '#/$defs/place' }, height: { type: 'number' } },
    },
  },
};

function build(pairs: string[], inputSchema: Record<string, unknown> = SCHEMA): unknown {
  return JSON.stringify(buildArguments(pairs, { name: 'tool', description: '', inputSchema }));
}

describe('arguments are what the schema says', () => {
  const cases: [string[], string][] = [
    [[], '{}'],
    [['text=5'], '{"text":"5"}'],
    [['text='], '{"text":""}'],
    [['text=a=b'], '{"text":"a=b"}'],
    [['text={"a":1}'], '{"text":"{\\"a\\":1}"}'],
    [['count=5', 'share=-1.5e3'], '{"count":5,"share":-1.5e3}'],
    [['count=9007199254740993'], '{"count":9007199254740993}'],
    [['loud=true'], '{"loud":true}'],
    [['tags=["a","b"]'], '{"tags":["a","b"]}'],
    [['tags=a', 'tags=5'], '{"tags":["a","5"]}'],
    [['sizes=1', 'sizes=2'], '{"sizes":[1,2]}'],
    [['where={"city":"Bern"}'], '{"where":{"city":"Bern"}}'],
    [['where.city=Bern', 'where.at.height=3'], '{"where":{"city":"Bern","at":{"height":3}}}'],
    [['level=low'], '{"level":"low"}'],
    [['maybe=null'], '{"maybe":null}'],
    [['either=5'], '{"either":"5"}'],
    [['dotted.name=5'], '{"dotted.name":5}'],
    [['any=5'], '{"any":5}'],
    [['any=five'], '{"any":"five"}'],
    [['any=null'], '{"any":null}'],
  ];
  for (const [pairs, wanted] of cases) {
    test(pairs.join(' ') || 'none', () => assert.equal(build(pairs), wanted));
  }

  test('a schema that names nothing takes anything', () => {
    assert.equal(build(['a=1', '__proto__.x=1'], { type: 'object' }), '{"a":1,"__proto__":{"x":1}}');
    assert.equal(({} as { x?: unknown }).x, undefined);
    const open = { properties: { a: { type: 'string' } }, additionalProperties: { type: 'integer' } };
    assert.equal(build(['a=1', 'b=1'], open), '{"a":"1","b":1}');
  });

  const refusals: [string[], RegExp][] = [
    [['text'], /"text" is not of the form name=value/],
    [['=x'], /not of the form/],
    [['txet=x'], /"tool" has no argument "txet"; did you mean "text"\?; there are: text, count/],
    [['where.ctiy=x'], /no argument "where\.ctiy"; did you mean "where\.city"/],
    [['constructor=x'], /no argument "constructor"/],
    [['text.x=1'], /"text" is no object but string/],
    [['count=1.5'], /--arg count: "1\.5" is no integer/],
    [['count=0x10'], /is no integer/],
    [['share=NaN'], /is no number/],
    [['loud=yes'], /is no boolean: true or false/],
    [['sizes=["a"'], /is no array, such as/],
    [['where=Bern'], /is no object, such as/],
    [['level=hihg'], /"hihg" is not one of low, high; did you mean "high"/],
    [['text=a', 'text=b'], /--arg text stands twice/],
    [['where={}', 'where={}'], /stands twice/],
  ];
  for (const [pairs, wanted] of refusals) {
    test(`refused: ${pairs.join(' ')}`, () =>
      assert.throws(() => build(pairs), { name: 'UsageError', message: wanted }));
  }

  test('what is missing is named', () => {
    const inputSchema = { ...SCHEMA, required: ['text', 'count'] };
    assert.throws(() => build(['text=a'], inputSchema), /"tool" wants "count"; give it by --arg count=…/);
  });

  test('a schema that refers to itself without end is no trap', () => {
    const round = { properties: { a: { $ref: '#/$defs/a' } }, $defs: { a: { $ref: '#/$defs/a' } } };
    assert.equal(build(['a=1'], round), '{"a":1}');
    const nested = { properties: { a: { anyOf: [{ $ref: '#/properties/a' }] } } };
    assert.equal(build(['a=x'], nested), '{"a":"x"}');
  });
});

async function read(chunks: Buffer[], maxLength = 1000): Promise<StreamEvent[]> {
  async function* body() {
    yield* chunks;
  }
  const events: StreamEvent[] = [];
  for await (const event of readEvents(body(), maxLength)) events.push(event);
  return events;
}

describe('events of a stream', () => {
  const TEXT =
    ': hello\r\nevent: progress\r\ndata: {"a":\r\ndata: "ü"}\r\n\r\nid: 5\ndata:x\n\n\revent: end\rdata\r\r';
  const WANTED = [
    { event: 'progress', data: '{"a":\n"ü"}' },
    { event: 'message', data: 'x', id: '5' },
    { event: 'end', data: '', id: '5' },
  ];

  test('are the same wherever the bytes are cut', async () => {
    const bytes = Buffer.from(TEXT);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 6 }), async cuts => {
        const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length];
        const chunks = at.slice(1).map((end, i) => bytes.subarray(at[i], end));
        // The last line end may be the first half of one, until something follows.
        assert.deepEqual(await read([...chunks, Buffer.from(':')]), WANTED);
      }),
    );
  });

  test('that never end are refused', async () => {
    await assert.rejects(read([Buffer.from(`data: ${'x'.repeat(2000)}`)]), /longer than 1000 characters/);
    const lines = Array.from({ length: 300 }, () => Buffer.from('data: xxxx\n'));
    await assert.rejects(read(lines), /longer than 1000 characters/);
  });
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../mesh/errors.ts';
import { inAscii } from '../../mesh/json-text.ts';
import {
  progressTokenOf,
  type RpcMessage,
  type RpcRequest,
  type RpcResponse,
  readBody,
  readChildMessage,
  readMessage,
  rewriteRequest,
  withId,
} from '../../mesh/jsonrpc.ts';
import { LongText, type WireText } from '../../mesh/wire-text.ts';

/** Whatever its length: in two pieces. */
function long(text: string): LongText {
  const bytes = Buffer.from(text, 'latin1');
  const middle = bytes.length >> 1;
  return new LongText(
    [Buffer.from(bytes.subarray(0, middle)), Buffer.from(bytes.subarray(middle))],
    bytes.length,
  );
}

/** What a reader makes of a text, told so that it can be compared. */
function told(read: (text: WireText) => RpcMessage, text: WireText): unknown {
  try {
    const { text: _text, ...rest } = read(text);
    if ('spans' in rest) delete rest.spans;
    return JSON.parse(JSON.stringify(rest));
  } catch (error) {
    assert.ok(error instanceof MeshError, String(error));
    return [error.code, error.message];
  }
}

const key = fc.constantFrom('jsonrpc', 'id', 'method', 'params', 'result', 'error', 'x', '_meta', '\\u0069d');
const value = fc.constantFrom(
  ...[
    '"2.0"',
    '1',
    '"a"',
    'null',
    '"tools/call"',
    '[]',
    '{}',
    '{"isError":true}',
    '{"isError":false,"a":[1]}',
  ],
  ...[
    '{"name":"t","arguments":{"a":[1,{"b":"c"}]},"_meta":{"progressToken":"p"}}',
    '{"_meta":{"a":1,"a":2}}',
  ],
  ...[
    '{"arguments":1,"arguments":2}',
    '{"code":-1,"message":"no"}',
    '{"arguments":{"n":12345678901234567890}}',
  ],
);
/** Messages of all kinds, and what is nearly one. */
const message = fc
  .array(fc.tuple(key, value), { maxLength: 6 })
  .map(members => members.map(([name, json]) => `"${name}" : ${json}`).join(',\n'))
  .chain(members => {
    const starts = [
      '',
      '"jsonrpc":"2.0","id":7,',
      '"jsonrpc":"2.0","method":"m",',
      '"jsonrpc":"2.0","id":7,"method":"m",',
    ];
    return fc.constantFrom(...starts.map(start => `{${start}${members}}`), `{${members}`);
  })
  .chain(text => fc.constantFrom(text, text.replace(',}', '}'), ` ${text}`));

describe('a long message', () => {
  test('is read as a short one is (property)', () => {
    const kinds = new Set<unknown>();
    fc.assert(
      fc.property(message, text => {
        for (const read of [readMessage, readChildMessage]) {
          const want = told(read, text);
          assert.deepEqual(told(read, long(text)), want, text);
          kinds.add(Array.isArray(want) ? want[0] : (want as RpcMessage).kind);
        }
      }),
      { numRuns: 3000 },
    );
    assert.deepEqual(
      [...kinds].sort(),
      ['invalid_request', 'notification', 'parse_error', 'request', 'response'],
      'all kinds were met',
    );
  });

  test('goes to the server under another id and progress token, else as it was', () => {
    const text =
      '{"x":12345678901234567890,\n"id" : "a","method":"tools/call","jsonrpc":"2.0","params":{"name":"t","_meta":{"progressToken":"p"},"arguments":{"id":1.0}}}';
    const request = readMessage(long(text)) as RpcRequest;
    assert.equal(request.idText, '"a"');
    assert.equal(progressTokenOf(request), '"p"');
    assert.deepEqual(request.params.arguments, { id: 1 });
    const want = text.replace('"id" : "a"', '"id" : 7').replace('"p"', '7').replace('\n', ' ');
    assert.equal(rewriteRequest(request, 7).toString(), want);
    assert.equal(request.text.toString(), text.replace('\n', ' '), 'a second try begins with the same');
  });

  for (const [desc, text] of [
    ['first', '{"jsonrpc":"2.0","id":12,"result":{"a":"\\u00e9"}}'],
    ['last', '{"result":{"jsonrpc":"2.0","id":1},"jsonrpc":"2.0","id":12}'],
    ['elsewhere', '{"id": 12,"result":{"id":1},"jsonrpc":"2.0"}'],
  ] as const) {
    test(`is answered under the client’s id, whatever it is: id ${desc}`, () => {
      for (const id of ['3', '"a-long-one-of-a-client"', '"é\u{1f600}"']) {
        const answered = withId(readChildMessage(long(text)) as RpcResponse, id);
        assert.equal(answered.toString(), text.replace('12', inAscii(id)));
        assert.deepEqual(JSON.parse(answered.toString()).id, JSON.parse(id));
      }
    });
  }

  test('may be a batch', () => {
    const batch = '[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"b"}]';
    for (const text of [batch, `${' '.repeat(200)}${batch}`]) {
      const messages = readBody(long(text), 10);
      assert.ok(Array.isArray(messages));
      assert.deepEqual(
        messages.map(({ kind }) => kind),
        ['request', 'notification'],
      );
    }
  });
});

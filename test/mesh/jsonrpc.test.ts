import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../mesh/errors.ts';
import { memberAt, membersOf } from '../../mesh/json-text.ts';
import {
  progressTokenOf,
  type RpcRequest,
  readChildMessage,
  readMessage,
  rewriteAt,
  rewriteRequest,
} from '../../mesh/jsonrpc.ts';

const codeOf = (text: string) => {
  try {
    readMessage(text);
  } catch (error) {
    assert.ok(error instanceof MeshError);
    return error.code;
  }
  return 'accepted';
};

describe('messages are told apart', () => {
  const cases = [
    { text: '{"jsonrpc":"2.0","id":1,"method":"ping"}', want: 'request' },
    { text: '{"jsonrpc":"2.0","method":"notifications/initialized"}', want: 'notification' },
    { text: '{"jsonrpc":"2.0","id":"a","result":{}}', want: 'response' },
    { text: '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}', want: 'response' },
  ];
  for (const { text, want } of cases) test(want, () => assert.equal(readMessage(text).kind, want));
});

describe('what is no message is refused', () => {
  const cases = [
    { desc: 'not JSON', text: '{', want: 'parse_error' },
    { desc: 'empty', text: '', want: 'parse_error' },
    { desc: 'text', text: '"x"', want: 'invalid_request' },
    { desc: 'array', text: '[]', want: 'invalid_request' },
    { desc: 'null', text: 'null', want: 'invalid_request' },
    { desc: 'other version', text: '{"jsonrpc":"1.0","id":1,"method":"x"}', want: 'invalid_request' },
    { desc: 'method is a number', text: '{"jsonrpc":"2.0","id":1,"method":1}', want: 'invalid_request' },
    {
      desc: 'params is an array',
      text: '{"jsonrpc":"2.0","id":1,"method":"x","params":[]}',
      want: 'invalid_request',
    },
    { desc: 'id is null', text: '{"jsonrpc":"2.0","id":null,"method":"x"}', want: 'invalid_request' },
    { desc: 'id is an object', text: '{"jsonrpc":"2.0","id":{},"method":"x"}', want: 'invalid_request' },
    {
      desc: 'result and error',
      text: '{"jsonrpc":"2.0","id":1,"result":1,"error":{}}',
      want: 'invalid_request',
    },
    { desc: 'id twice', text: '{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}', want: 'invalid_request' },
    {
      desc: 'id twice, once escaped',
      text: '{"jsonrpc":"2.0","id":1,"\\u0069d":2,"method":"x"}',
      want: 'invalid_request',
    },
    {
      desc: 'tool name twice',
      text: '{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","name":"b"}}',
      want: 'invalid_request',
    },
    {
      desc: 'progress token twice',
      text: '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}',
      want: 'invalid_request',
    },
    {
      desc: 'deeper than any parser goes',
      text: `{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":${'['.repeat(200_000)}}}`,
      want: 'parse_error',
    },
  ];
  for (const { desc, text, want } of cases) test(desc, () => assert.equal(codeOf(text), want));
});

test('a request keeps everything but its id: order, unknown members, integers beyond 2^53', () => {
  const text =
    '{ "x":12345678901234567890 ,\n "method":"tools/call","params":{"arguments":{"id":1,"n":1.0}},"id" : "a\\"b" ,"jsonrpc":"2.0"}';
  const request = readMessage(text) as RpcRequest;
  assert.equal(request.idText, '"a\\"b"');
  const want =
    '{ "x":12345678901234567890 ,  "method":"tools/call","params":{"arguments":{"id":1,"n":1.0}},"id" : 7 ,"jsonrpc":"2.0"}';
  assert.equal(rewriteRequest(request, 7).toString().replace(/ +/g, ' '), want.replace(/ +/g, ' '));
});

test('the progress token is replaced and given back as it was', () => {
  const request = readMessage(
    '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1,"progressToken":"t\\u00e9"}}}',
  ) as RpcRequest;
  assert.equal(progressTokenOf(request), '"t\\u00e9"');
  assert.equal(
    rewriteRequest(request, 9),
    '{"jsonrpc":"2.0","id":9,"method":"x","params":{"_meta":{"a":1,"progressToken":9}}}',
  );
});

test('a rewritten message is one line, whatever white space it came with', () => {
  const request = readMessage('{\r\n"jsonrpc":"2.0",\n"id":1,\n"method":"x"}') as RpcRequest;
  assert.doesNotMatch(rewriteRequest(request, 2).toString(), /[\r\n]/);
});

test('any JSON object: its members are found where they stand (property)', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.constantFrom(undefined, 1, '\t'),
      (object, indent) => {
        const text = JSON.stringify(object, null, indent);
        const parsed = JSON.parse(text) as Record<string, unknown>;
        const members = membersOf(text);
        assert.deepEqual(
          members.map(member => member.key),
          Object.keys(parsed),
        );
        for (const { key, start, end } of members)
          assert.deepEqual(JSON.parse(text.slice(start, end)), parsed[key]);
      },
    ),
  );
});

test('any message: replacing the id changes the id and nothing else (property)', () => {
  const id = fc.oneof(fc.string(), fc.integer());
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), id, fc.nat(), (extra, before, after) => {
      const { jsonrpc: _j, id: _i, method: _m, params: _p, result: _r, error: _e, ...rest } = extra;
      const value = { ...rest, id: before, jsonrpc: '2.0', result: extra };
      const text = JSON.stringify(value);
      const message = readChildMessage(text);
      const rewritten = rewriteAt(message.text.toString(), ['id'], String(after));
      assert.deepEqual(JSON.parse(rewritten), JSON.parse(JSON.stringify({ ...value, id: after })));
      assert.equal(rewriteAt(rewritten, ['id'], JSON.stringify(before)), text);
    }),
  );
});

test('a path that is not there is undefined', () => {
  assert.equal(memberAt('{"a":{"b":1}}', ['a', 'c']), undefined);
  assert.equal(memberAt('{}', ['a', 'c']), undefined);
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import type { ServerInfo } from '../../workers/connection.ts';
import {
  readInputRequired,
  toLegacyRequest,
  toLegacyResponse,
  toModernRequest,
  toModernResponse,
} from '../../workers/translate.ts';

const info: ServerInfo = {
  era: 'legacy',
  protocolVersion: '2025-11-25',
  capabilities: {},
  serverInfo: { name: 's', version: '1' },
};
const request = (params: string) =>
  readMessage(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":${params}}`) as RpcRequest;
const response = (member: string) => `{"jsonrpc":"2.0","id":1,${member}}`;
const PREFIX = 'io.modelcontextprotocol/';

describe('a modern request for a legacy server', () => {
  test('loses what only the modern era has, and nothing else', () => {
    const { text } = toLegacyRequest(
      request(
        `{"name":"t","n":12345678901234567890,"inputResponses":{},"requestState":"s","_meta":{"${PREFIX}protocolVersion":"2026-07-28","traceparent":"00-x","my/key":1}}`,
      ),
    );
    const want =
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","n":12345678901234567890,"_meta":{"traceparent":"00-x","my/key":1}}}';
    assert.equal(text, want);
  });
  test('stays as it is when it has nothing of the kind', () => {
    const one = request('{"name":"t"}');
    assert.equal(toLegacyRequest(one).text, one.text);
  });
});

describe('a legacy response for a modern client', () => {
  const named = `"_meta":{"${PREFIX}serverInfo":{"name":"s","version":"1"}}`;
  const cases = [
    {
      desc: 'a result is complete and says who made it',
      method: 'tools/call',
      from: '"result":{"content":[]}',
      to: `"result":{"content":[],${named},"resultType":"complete"}`,
    },
    {
      desc: 'other _meta stays',
      method: 'tools/call',
      from: '"result":{"_meta":{"a":1}}',
      to: `"result":{"_meta":{"a":1,"${PREFIX}serverInfo":{"name":"s","version":"1"}},"resultType":"complete"}`,
    },
    {
      desc: 'a list may not be kept',
      method: 'prompts/list',
      from: '"result":{"prompts":[]}',
      to: `"result":{"prompts":[],${named},"resultType":"complete","ttlMs":0,"cacheScope":"private"}`,
    },
    {
      desc: 'tools lose their task support',
      method: 'tools/list',
      from: '"result":{"tools":[{"name":"a","execution":{"x":1}},{"name":"b"}]}',
      to: `"result":{"tools":[{"name":"a"},{"name":"b"}],${named},"resultType":"complete","ttlMs":0,"cacheScope":"private"}`,
    },
    {
      desc: 'a missing resource has another code',
      method: 'resources/read',
      from: '"error":{"code":-32002,"message":"gone"}',
      to: '"error":{"message":"gone","code":-32602}',
    },
    {
      desc: 'any other error stays',
      method: 'tools/call',
      from: '"error":{"code":-32603,"message":"x"}',
      to: '"error":{"code":-32603,"message":"x"}',
    },
  ];
  for (const { desc, method, from, to } of cases) {
    test(desc, () => assert.equal(toModernResponse(method, response(from), info), response(to)));
  }

  test('URLs to open first become a question (-32042)', () => {
    const error = {
      code: -32042,
      message: 'open',
      data: { elicitations: [{ elicitationId: 'e', url: 'https://x', message: 'm', mode: 'url' }] },
    };
    const text = toModernResponse('tools/call', response(`"error":${JSON.stringify(error)}`), info);
    assert.deepEqual(readInputRequired(text)?.requests.get('url_1'), {
      method: 'elicitation/create',
      params: '{"url":"https://x","message":"m","mode":"url"}',
    });
    assert.equal(JSON.parse(text).error, undefined);
  });
});

test('a legacy request for a modern server says who its client is', () => {
  const client = { protocolVersion: '2025-06-18', capabilities: { roots: {} }, clientInfo: { name: 'c' } };
  const { text } = toModernRequest(request('{"name":"t","_meta":{"progressToken":7}}'), client, 'info');
  assert.deepEqual(JSON.parse(text.toString()).params, {
    name: 't',
    _meta: {
      progressToken: 7,
      [`${PREFIX}protocolVersion`]: '2026-07-28',
      [`${PREFIX}clientCapabilities`]: { roots: {} },
      [`${PREFIX}clientInfo`]: { name: 'c' },
      [`${PREFIX}logLevel`]: 'info',
    },
  });
});

describe('a modern response for a legacy client', () => {
  const cases = [
    {
      desc: '_meta goes when nothing else was in it',
      method: 'tools/call',
      from: `"result":{"content":[],"_meta":{"${PREFIX}serverInfo":{}}}`,
      to: '"result":{"content":[]}',
    },
    {
      desc: 'loses what it would not understand',
      method: 'tools/call',
      from: `"result":{"content":[],"resultType":"complete","_meta":{"${PREFIX}serverInfo":{},"a":1}}`,
      to: '"result":{"content":[],"_meta":{"a":1}}',
    },
    {
      desc: 'a list loses its cache hints',
      method: 'tools/list',
      from: '"result":{"tools":[],"ttlMs":5,"cacheScope":"public","resultType":"complete"}',
      to: '"result":{"tools":[]}',
    },
    {
      desc: 'content that is no object is wrapped',
      method: 'tools/call',
      from: '"result":{"structuredContent":[1,2]}',
      to: '"result":{"structuredContent":{"result":[1,2]}}',
    },
    {
      desc: 'and so is its schema',
      method: 'tools/list',
      from: '"result":{"tools":[{"outputSchema":{"type":"array"}}]}',
      to: '"result":{"tools":[{"outputSchema":{"type":"object","properties":{"result":{"type":"array"}},"required":["result"]}}]}',
    },
    {
      desc: 'a modern error has a code that it knows',
      method: 'tools/call',
      from: '"error":{"code":-32021,"message":"m"}',
      to: '"error":{"message":"m","code":-32602}',
    },
  ];
  for (const { desc, method, from, to } of cases) {
    test(desc, () => assert.equal(toLegacyResponse(method, response(from)), response(to)));
  }
});

test('what a broken server answers is never touched where it is no object', () => {
  for (const member of [
    '"result":[{}]',
    '"result":"abc"',
    '"result":{"tools":"x"}',
    '"result":{"_meta":7}',
    '"result":{"tools":[1,"x",null]}',
  ]) {
    for (const method of ['tools/list', 'tools/call']) {
      toModernResponse(method, response(member), info);
      toLegacyResponse(method, response(member));
    }
  }
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { MeshError } from '../../mesh/errors.ts';
import type { GrantRule, Grants, Limits } from '../../mesh/grants.ts';
import { type RpcRequest, readMessage } from '../../mesh/jsonrpc.ts';
import { isGranted, requireGrant, showGranted } from '../../workers/guard.ts';

const ALL: Grants = { allow: [{}], deny: [] };
const SOME: Grants = {
  allow: [{ tools: ['get_*'], prompts: ['sum_up'], resources: ['file:///pub/*', 'file:///{dir}/*'] }],
  deny: [{ tools: ['get_secret'] }],
};
const QUOTA: Limits = { quota: { calls: 1, period: 'day' } };

describe('a request', () => {
  const cases: [method: string, params: string, outcome: string][] = [
    ['tools/call', '{"name":"get_x"}', 'allowed'],
    ['tools/call', '{"name":"get_secret"}', 'forbidden'],
    ['tools/call', '{"name":"put_x"}', 'forbidden'],
    ['tools/call', '{}', 'invalid_request'],
    ['tools/call', '{"name":["get_x"]}', 'invalid_request'],
    ['tools/call', '{"name":7}', 'invalid_request'],
    ['tools/call', '{"name":null}', 'invalid_request'],
    ['prompts/get', '{"name":"sum_up"}', 'allowed'],
    ['prompts/get', '{"name":"get_x"}', 'forbidden'],
    ['prompts/get', '{"name":["sum_up"]}', 'forbidden'],
    ['resources/read', '{"uri":"file:///pub/a"}', 'allowed'],
    ['resources/read', '{"uri":"file:///pub/../etc"}', 'forbidden'],
    ['resources/read', '{"name":"file:///pub/a"}', 'forbidden'],
    ['resources/subscribe', '{"uri":"file:///pub/a"}', 'allowed'],
    ['resources/subscribe', '{"uri":"file:///etc"}', 'forbidden'],
    ['resources/unsubscribe', '{"uri":"file:///etc"}', 'allowed'],
    ['completion/complete', '{"ref":{"type":"ref/prompt","name":"sum_up"}}', 'allowed'],
    ['completion/complete', '{"ref":{"type":"ref/prompt","name":"get_x"}}', 'forbidden'],
    ['completion/complete', '{"ref":{"type":"ref/resource","uri":"file:///{dir}/{name}"}}', 'allowed'],
    ['completion/complete', '{"ref":{"type":"ref/resource","uri":"note://x","name":"sum_up"}}', 'forbidden'],
    ['completion/complete', '{"ref":"sum_up"}', 'forbidden'],
    ['completion/complete', '{}', 'forbidden'],
    ['tools/list', '{"cursor":"x"}', 'allowed'],
    ['resources/templates/list', '{}', 'allowed'],
    ['ping', '{}', 'allowed'],
    ['server/discover', '{}', 'allowed'],
    ['logging/setLevel', '{"level":"debug"}', 'allowed'],
    ['tasks/get', '{"taskId":"x"}', 'forbidden'],
    ['vendor/anything', '{}', 'forbidden'],
    ['constructor', '{}', 'forbidden'],
    ['Tools/List', '{}', 'forbidden'],
  ];
  for (const [method, params, outcome] of cases) {
    test(`of a restricted caller: ${method} ${params} is ${outcome}`, () => {
      assert.equal(outcomeOf(requestOf(method, params), SOME), outcome);
    });
  }

  test('of an unrestricted caller is allowed, whatever it is about', () => {
    for (const [method, params] of cases) assert.equal(outcomeOf(requestOf(method, params), ALL), 'allowed');
  });

  test('of a caller with a quota must name its tool so that it can be counted', () => {
    assert.equal(outcomeOf(requestOf('tools/call', '{"name":"x"}'), ALL, QUOTA), 'allowed');
    assert.equal(outcomeOf(requestOf('vendor/anything', '{}'), ALL, QUOTA), 'allowed');
    for (const params of ['{"name":["x"]}', '{"Name":"x"}', '{"name":"cheap","NAME":"dear"}']) {
      assert.equal(outcomeOf(requestOf('tools/call', params), ALL, QUOTA), 'invalid_request', params);
    }
    const rates: Limits = { toolRates: [{ pattern: '*', calls: 1, windowS: 1 }] };
    assert.equal(outcomeOf(requestOf('tools/call', '{"Name":"x"}'), ALL, rates), 'invalid_request');
  });

  test('that another parser may read otherwise is refused', () => {
    const texts = [
      '{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call","params":{}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/list","m\\u0045thod":"tools/call"}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/list","PARAMS":{"name":"put_x"}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/list","param\u017f":{"name":"put_x"}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_x","nAme":"put_x"}}',
      '{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///pub/a","URI":"file:///etc"}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/list","method\\u0000":"tools/call","params":{}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_x","name ":"put_x"}}',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_x","na\\u200bme":"put_x"}}',
      '{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"x","name":"sum_up"}}}',
      '{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"sum_up","Name":"x"}}}',
      '{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"sum_up"},"Ref":{}}}',
    ];
    for (const text of texts)
      assert.equal(outcomeOf(readMessage(text) as RpcRequest, SOME), 'invalid_request', text);
  });

  test('may have members that nobody judges by, in arguments and beside them', () => {
    const params = '{"name":"get_x","arguments":{"Name":1,"NAME":2,"name":3},"_meta":{"Name":4},"task":{}}';
    assert.equal(outcomeOf(requestOf('tools/call', params), SOME), 'allowed');
  });

  test('is refused in the same words, whether there is such a thing or not, and in few', () => {
    const say = (name: string) => {
      const { message } = faultOf(requestOf('tools/call', JSON.stringify({ name })), SOME) as MeshError;
      return message.replace(name, 'NAME');
    };
    assert.equal(say('put_x'), say('nope'));
    assert.ok(say('x'.repeat(100_000)).length < 300);
    assert.doesNotMatch(say('a\nb\u0000'), /[\n\0]/);
  });
});

describe('a denied name', () => {
  const denied = (kind: keyof GrantRule, pattern: string, name: string) =>
    !isGranted({ allow: [{}], deny: [{ [kind]: [pattern] }] }, kind, name);

  test('is denied in each spelling that a server may take for it', () => {
    for (const name of [
      'delete_all',
      'DELETE_all',
      ' delete_all',
      'delete_all\u00a0',
      'ｄelete_all',
      'Delete_ﬁle',
    ]) {
      assert.ok(denied('tools', 'delete_*', name), name);
      assert.ok(denied('prompts', 'Delete_*', name), name);
    }
    for (const uri of [
      'file:///Secret/x',
      'FILE:///secret/x',
      'file:///%53ecret/x',
      'file:///se%63ret/x#y',
      ' file:///secret/x',
    ]) {
      assert.ok(denied('resources', 'file:///secret/*', uri), uri);
    }
    for (const uri of ['note://one', 'note:///one', 'note:////one/', 'NOTE:///one?x', 'note://\\one']) {
      assert.ok(denied('resources', 'note://one', uri), uri);
      assert.ok(denied('resources', 'note:///one', uri), uri);
    }
  });

  test('takes no other along', () => {
    assert.ok(!denied('tools', 'delete_*', 'undelete_all'));
    assert.ok(!denied('tools', 'delete_*', 'Überprüfen'));
    assert.ok(!denied('prompts', 'x', 'y'));
    assert.ok(!denied('resources', 'note://one', 'note://one/two'));
    assert.ok(!denied('resources', 'note://one', 'note://everyone'));
    assert.ok(
      !isGranted({ allow: [{ tools: ['a'] }], deny: [] }, 'tools', 'A'),
      'allowed is what is written so',
    );
  });
});

describe('a list', () => {
  const list =
    '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get_x","n":9007199254740993}, {"name":"get_secret"},{"name":["get_y"]},7,{"name":"put_x"}],"nextCursor":"c"}}';

  test('has what the caller may use, as the server wrote it', () => {
    assert.equal(
      showGranted('tools/list', list, SOME),
      '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get_x","n":9007199254740993}],"nextCursor":"c"}}',
    );
    const all = '{"result":{"prompts":[{"name":"sum_up"}]}}';
    assert.equal(showGranted('prompts/list', all, SOME), all);
  });

  test('of resources goes by the URI, of templates by theirs', () => {
    const resources =
      '{"result":{"resources":[{"uri":"file:///pub/a"},{"uri":"file:///etc","name":"file:///pub/a"}]}}';
    assert.equal(
      showGranted('resources/list', resources, SOME),
      '{"result":{"resources":[{"uri":"file:///pub/a"}]}}',
    );
    const templates =
      '{"result":{"resourceTemplates":[{"uriTemplate":"note://{x}"},{"uriTemplate":"file:///{dir}/{x}"}]}}';
    assert.equal(
      showGranted('resources/templates/list', templates, SOME),
      '{"result":{"resourceTemplates":[{"uriTemplate":"file:///{dir}/{x}"}]}}',
    );
  });

  test('is left alone for an unrestricted caller, and where it is none', () => {
    assert.equal(showGranted('tools/list', list, ALL), list);
    for (const text of [
      '{"error":{"code":-32603,"message":"x"}}',
      '{"result":{}}',
      '{"result":{"tools":{"name":"put_x"}}}',
      '{"result":{"tools":[]}}',
    ]) {
      assert.equal(showGranted('tools/list', text, SOME), text);
    }
    assert.equal(showGranted('tools/call', list, SOME), list);
    assert.equal(showGranted('constructor', list, SOME), list);
  });
});

function requestOf(method: string, params: string): RpcRequest {
  return readMessage(`{"jsonrpc":"2.0","id":1,"method":"${method}","params":${params}}`) as RpcRequest;
}

function faultOf(request: RpcRequest, grants: Grants, limits: Limits = {}): unknown {
  try {
    requireGrant(request, { grants, limits });
    return undefined;
  } catch (fault) {
    return fault;
  }
}

function outcomeOf(request: RpcRequest, grants: Grants, limits?: Limits): string {
  const fault = faultOf(request, grants, limits) as MeshError | undefined;
  return fault?.code ?? 'allowed';
}

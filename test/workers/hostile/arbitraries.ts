import fc from 'fast-check';
import { META } from '../../../mesh/eras.ts';

/** What the fuzz tests draw from. */

/** Largest request body of the worker under test. */
export const BODY_MAX = 100_000;

export const method = fc.oneof(
  { weight: 5, arbitrary: fc.constant('POST') },
  fc.constantFrom(
    'GET',
    'DELETE',
    'PUT',
    'PATCH',
    'OPTIONS',
    'HEAD',
    'TRACE',
    'PROPFIND',
    'QUERY',
    'post',
    'FOO',
    'CONNECT',
    '',
  ),
);
export const path = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom('/mcp', '/execute', '/tools/echo', '/tools/x', '/tools', '/mcp?x=1', '/mcp/'),
  },
  fc.constantFrom(
    '/',
    '*',
    '//',
    '/../mcp',
    '/%zz',
    '/tools/%',
    '/tools/%ff',
    '/tools/..%2f..',
    '/tools/__proto__',
    '/mcp#x',
    '/health/',
    'http://evil.example/mcp',
    '/tools/;',
    `/tools/${'a'.repeat(3000)}`,
  ),
  fc.webPath().map(text => text || '/'),
  fc.string({ unit: 'binary-ascii' }).map(text => `/tools/${text.replace(/[\r\n ]/g, '')}`),
);
const headerText = fc
  .string({ unit: 'binary-ascii', maxLength: 30 })
  .map(text => text.replace(/[\r\n]/g, ''));
export const headersFor = (session: Record<string, string>) =>
  fc.record(
    {
      'content-type': fc.oneof(
        { weight: 4, arbitrary: fc.constant('application/json') },
        headerText,
        fc.constantFrom('text/plain', 'application/json; charset=utf-16', 'multipart/form-data'),
      ),
      accept: fc.oneof(
        { weight: 4, arbitrary: fc.constant('application/json, text/event-stream') },
        headerText,
        fc.constantFrom('*/*', '', 'text/html'),
      ),
      'mcp-session-id': fc.oneof(
        fc.constant(session['mcp-session-id'] ?? ''),
        headerText,
        fc.constantFrom('a.b.c', '..', 'null'),
      ),
      'mcp-protocol-version': fc.oneof(
        fc.constantFrom('2025-11-25', '2026-07-28', '1', '__proto__'),
        headerText,
      ),
      'mcp-method': fc.oneof(fc.constantFrom('tools/call', 'tools/list'), headerText),
      'mcp-name': fc.oneof(fc.constantFrom('echo', '=?base64?ZWNobw==?=', '=?base64?%?='), headerText),
      'last-event-id': fc.oneof(fc.constantFrom('x_1', '_', 'a_99999999999999999999'), headerText),
      'x-request-id': headerText,
      'x-mesh-forward': fc.oneof(fc.constantFrom('9999999999999.AAAA', '.', '__proto__'), headerText),
      'mcp-param-text': headerText,
      traceparent: headerText,
      expect: fc.constantFrom('100-continue', 'x'),
      cookie: headerText,
    },
    { requiredKeys: [] },
  );
export const body = fc.oneof(
  fc.json(),
  fc.string({ unit: 'binary' }),
  fc.constantFrom(
    '',
    '{',
    '[]',
    '[[]]',
    'null',
    '{"jsonrpc":"2.0"}',
    `${'['.repeat(20_000)}${']'.repeat(20_000)}`,
    `{"a":${'{"a":'.repeat(5000)}1${'}'.repeat(5001)}`,
    'x'.repeat(BODY_MAX + 1),
    JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' }),
  ),
  fc
    .record(
      { command: fc.anything(), params: fc.anything(), timeout_ms: fc.anything() },
      { requiredKeys: [] },
    )
    .map(toJson),
);
export const restBody = fc.oneof(
  body.filter(text => text.length < BODY_MAX),
  fc.jsonValue().map(toJson),
  fc
    .record({
      command: fc.constantFrom(
        'echo',
        'tools/list',
        'tools/call',
        'constructor',
        '__proto__',
        'server/discover',
        'initialize',
        'subscriptions/listen',
      ),
      params: fc.jsonValue(),
    })
    .map(toJson),
);

/** Members of the right names with values of any kind, some of them right. */
const loosely = <T>(right: T) =>
  fc.oneof({ weight: 6, arbitrary: fc.constant(right) }, fc.jsonValue({ maxDepth: 2 }));
const meta = fc.record(
  {
    [META.protocolVersion]: loosely('2026-07-28'),
    [META.clientCapabilities]: loosely({}),
    [META.clientInfo]: loosely({ name: 'x', version: '1' }),
    [META.logLevel]: loosely('debug'),
    [META.subscriptionId]: fc.jsonValue({ maxDepth: 1 }),
    progressToken: loosely(1),
    traceparent: fc.jsonValue({ maxDepth: 1 }),
  },
  { requiredKeys: [] },
);
const methodName = fc.oneof(
  fc.constantFrom(
    'tools/call',
    'tools/list',
    'initialize',
    'ping',
    'server/discover',
    'logging/setLevel',
    'resources/subscribe',
    'resources/unsubscribe',
    'resources/read',
    'prompts/get',
    'completion/complete',
    'tasks/get',
    'notifications/cancelled',
    'notifications/initialized',
    'notifications/roots/list_changed',
    'constructor',
    '__proto__',
    '',
  ),
  fc.string(),
);
const params = fc.record(
  {
    _meta: fc.oneof({ weight: 4, arbitrary: meta }, fc.jsonValue({ maxDepth: 1 })),
    name: loosely('echo'),
    arguments: loosely({ text: 'x' }),
    uri: loosely('file:///x'),
    level: loosely('debug'),
    requestId: fc.jsonValue({ maxDepth: 1 }),
    requestState: fc.oneof(fc.string(), fc.jsonValue({ maxDepth: 1 })),
    inputResponses: fc.jsonValue({ maxDepth: 2 }),
    notifications: fc.jsonValue({ maxDepth: 2 }),
    protocolVersion: loosely('2025-06-18'),
    capabilities: fc.jsonValue({ maxDepth: 3 }),
    clientInfo: fc.jsonValue({ maxDepth: 2 }),
    cursor: fc.jsonValue({ maxDepth: 1 }),
  },
  { requiredKeys: [] },
);
const message = fc.record(
  {
    jsonrpc: loosely('2.0'),
    id: fc.oneof(fc.integer(), fc.string(), fc.jsonValue({ maxDepth: 1 })),
    method: fc.oneof({ weight: 8, arbitrary: methodName }, fc.jsonValue({ maxDepth: 1 })),
    params: fc.oneof({ weight: 8, arbitrary: params }, fc.jsonValue({ maxDepth: 2 })),
    result: fc.jsonValue({ maxDepth: 2 }),
    error: fc.jsonValue({ maxDepth: 2 }),
  },
  { requiredKeys: ['jsonrpc'] },
);
const request = fc.record({
  jsonrpc: fc.constant('2.0'),
  id: fc.oneof(fc.integer(), fc.string()),
  method: methodName,
  params,
});
export const nearMessage = fc.oneof(
  { weight: 4, arbitrary: request },
  { weight: 2, arbitrary: message },
  fc.array(message, { maxLength: 3 }) as fc.Arbitrary<object>,
);

export const printed = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 200 }).map(bytes => Buffer.from(bytes)),
      // Without a number as its id, which might be that of a call: whoever answers it has answered it.
      message
        .filter(({ id, method: name }) => typeof id !== 'number' || typeof name === 'string')
        .map(value => Buffer.from(JSON.stringify(value))),
      fc
        .constantFrom(
          '\n',
          '\r\n',
          '\u2028',
          '{"jsonrpc":"2.0","id":"x","result":{}}',
          '{"jsonrpc":"2.0","method":"notifications/progress"}',
          '{"jsonrpc":"2.0","method":"notifications/message","params":null}',
          '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}',
          '{"jsonrpc":"2.0","id":5,"method":"ping"}',
        )
        .map(text => Buffer.from(text)),
    ),
    { maxLength: 6 },
  )
  .map(lines => Buffer.concat(lines.flatMap(line => [line, Buffer.from('\n')])));

/** JSON text of any value, with strings that look like structure. */
const structural = fc
  .array(fc.constantFrom('{', '}', '[', ']', '"', '\\', ':', ',', '_meta', 'id', 'a', ' ', '\n'), {
    maxLength: 8,
  })
  .map(parts => parts.join(''));
export const anyJson = fc
  .oneof(
    fc.jsonValue({ maxDepth: 4 }),
    fc.jsonValue({ maxDepth: 3, stringUnit: fc.constantFrom('{', '[', '"', '\\', 'a', '}') }),
    structural,
    fc.array(fc.oneof(structural, fc.jsonValue({ maxDepth: 1 })), { maxLength: 4 }),
    fc.record(
      {
        _meta: fc.jsonValue(),
        tools: fc.jsonValue(),
        content: fc.jsonValue(),
        structuredContent: fc.jsonValue(),
        resultType: fc.oneof(fc.constantFrom('complete', 'input_required', 'task'), fc.jsonValue()),
        inputRequests: fc.oneof(fc.jsonValue(), fc.dictionary(fc.string(), fc.jsonValue())),
        code: fc.jsonValue(),
        message: fc.jsonValue(),
        data: fc.jsonValue(),
      },
      { requiredKeys: [] },
    ),
  )
  .map(toJson);

function toJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? '';
  } catch {
    // A BigInt, or a cycle, of fc.anything().
    return '{"cannot":"print"}';
  }
}

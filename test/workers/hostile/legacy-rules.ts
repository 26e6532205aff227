import { type Headers, initialize, message, notification, type Rule } from './rules.ts';

const LIST = message('tools/list');
const PING = message('ping');
const INITIALIZED = notification('notifications/initialized');
const NO_SESSION: Headers = { 'mcp-session-id': 'made-up' };
const STREAM: Headers = { accept: 'text/event-stream' };

/** Streamable HTTP to 2025-11-25 (basic/transports), for a session with these headers. */
export function legacyRules(s: Headers): Rule[] {
  const version = (value: string): Headers => ({ ...s, 'mcp-protocol-version': value });
  return [
    ['Sending Messages: a request is answered', { headers: s, body: LIST }, 200],
    ['Sending Messages: a string id stays one', { headers: s, body: message('tools/list', {}, '5') }, 200],
    ['Sending Messages: notification, 202', { headers: s, body: INITIALIZED }, 202],
    ['Sending Messages: response, 202', { headers: s, body: { jsonrpc: '2.0', id: 'x', result: {} } }, 202],
    [
      'Sending Messages: error response, 202',
      { headers: s, body: { jsonrpc: '2.0', id: 1, error: { code: 1, message: 'x' } } },
      202,
    ],
    ['Sending Messages: unknown method is an answer', { headers: s, body: message('no/such') }, 200, -32601],
    [
      'Tools: an error of a tool is an answer',
      { headers: s, body: message('tools/call', { name: 'error' }) },
      200,
      -32602,
    ],
    ['Ping: answered', { headers: s, body: PING }, 200],
    ['Lifecycle: initialize', { body: initialize('2025-11-25') }, 200],
    ['Lifecycle: initialize with an unknown version gets another', { body: initialize('1999-01-01') }, 200],
    [
      'Session Management: initialize with a stale session',
      { headers: NO_SESSION, body: initialize('2025-06-18') },
      200,
    ],
    ['Session Management: request without the session, 400', { body: LIST }, 400, -32600],
    ['Session Management: notification without it, 400', { body: INITIALIZED }, 400, -32600],
    ['Session Management: GET without it, 400', { method: 'GET', headers: STREAM }, 400, -32600],
    ['Session Management: DELETE without it, 400', { method: 'DELETE' }, 400, -32600],
    ['Session Management: unknown session, 404', { headers: NO_SESSION, body: LIST }, 404, -32001],
    [
      'Session Management: unknown session, notification, 404',
      { headers: NO_SESSION, body: INITIALIZED },
      404,
      -32001,
    ],
    [
      'Session Management: unknown session, GET, 404',
      { method: 'GET', headers: { ...NO_SESSION, ...STREAM } },
      404,
      -32001,
    ],
    [
      'Session Management: unknown session, DELETE, 404',
      { method: 'DELETE', headers: NO_SESSION },
      404,
      -32001,
    ],
    ['Session Management: one character changed, 404', { headers: forged(s), body: LIST }, 404, -32001],
    [
      'Session Management: 10,000 characters, 404',
      { headers: { 'mcp-session-id': 'a'.repeat(10_000) }, body: LIST },
      404,
      -32001,
    ],
    [
      'Listening: GET without text/event-stream, 406',
      { method: 'GET', headers: { ...s, accept: 'application/json' } },
      406,
      -32600,
    ],
    ['Listening: GET without Accept, 406', { method: 'GET', headers: s }, 406, -32600],
    [
      'Listening: GET with q=0, 406',
      { method: 'GET', headers: { ...s, accept: 'text/event-stream;q=0' } },
      406,
      -32600,
    ],
    ['Protocol Version Header: invalid, 400', { headers: version('abc'), body: LIST }, 400, -32600],
    [
      'Protocol Version Header: unsupported, 400',
      { headers: version('2099-01-01'), body: LIST },
      400,
      -32600,
    ],
    [
      'Protocol Version Header: twice, 400',
      { headers: version('2025-11-25, 2025-11-25'), body: LIST },
      400,
      -32600,
    ],
    [
      'Protocol Version Header: notification, 400',
      { headers: version('abc'), body: INITIALIZED },
      400,
      -32600,
    ],
    [
      'Protocol Version Header: GET, 400',
      { method: 'GET', headers: { ...version('abc'), ...STREAM } },
      400,
      -32600,
    ],
    ['Protocol Version Header: DELETE, 400', { method: 'DELETE', headers: version('abc') }, 400, -32600],
    // Clients do so: the official test suite speaks 2025-03-26 in a session of 2025-11-25.
    ...['2025-06-18', '2025-03-26', '2024-11-05'].map(
      (other): Rule => [
        `Protocol Version Header: ${other} in another session`,
        { headers: version(other), body: LIST },
        200,
      ],
    ),
    [
      'Protocol Version Header: absent means 2025-03-26',
      { headers: s, without: ['mcp-protocol-version'], body: LIST },
      200,
    ],
    ['Batching (2025-03-26): in a later session, 400', { headers: s, body: [PING] }, 400, -32600],
    ['Batching (2025-03-26): without a session, 400', { body: [PING] }, 400, -32600],
    ['Batching (2025-03-26): empty, 400', { headers: s, body: [] }, 400, -32600],
    ...NO_MESSAGES.map((body): Rule => [`JSON-RPC 2.0 §4: ${body}, 400`, { headers: s, body }, 400, -32600]),
  ];
}

/** JSON, but no message of MCP; or one that two parsers may read differently. */
const NO_MESSAGES = [
  'null',
  '1',
  '"x"',
  '{}',
  '{"jsonrpc":"1.0","id":1,"method":"ping"}',
  '{"jsonrpc":"2.0","id":null,"method":"ping"}',
  '{"jsonrpc":"2.0","id":{},"method":"ping"}',
  '{"jsonrpc":"2.0","id":true,"method":"ping"}',
  '{"jsonrpc":"2.0","id":1,"method":5}',
  '{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}',
  '{"jsonrpc":"2.0","id":1,"method":"ping","params":null}',
  '{"jsonrpc":"2.0","id":1}',
  '{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}',
  '{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
  '{"jsonrpc":"2.0","id":1,"method":"ping","\\u006dethod":"tools/list"}',
  '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}',
];

function forged(session: Headers): Headers {
  const token = session['mcp-session-id'] ?? '';
  return { 'mcp-session-id': `${token.slice(0, -3)}${token.at(-3) === 'A' ? 'B' : 'A'}${token.slice(-2)}` };
}

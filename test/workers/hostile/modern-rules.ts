import { META, MODERN_VERSION } from '../../../mesh/eras.ts';
import { MODERN_META, modernHeaders } from './helpers.ts';
import { type Asked, type Headers, initialize, message, notification, type Rule } from './rules.ts';

interface Changes {
  /** `undefined` takes a key out. */
  meta?: object;
  headers?: Headers;
  without?: string[];
  id?: unknown;
}

/** A modern request that is right, but for the changes. */
export function modern(
  method: string,
  params: object = {},
  { meta, headers, without, id = 5 }: Changes = {},
): Asked {
  const { name, uri } = params as { name?: string; uri?: string };
  return {
    headers: { ...modernHeaders(method, name ?? uri), ...headers },
    without: without ?? [],
    body: message(method, { ...params, _meta: { ...MODERN_META, ...meta } }, id),
  };
}

const V = META.protocolVersion;
const CAPABILITIES = META.clientCapabilities;
const CLAIM = { _meta: MODERN_META };
const OTHER = '2099-01-01';
const unserved = (requested: string) => ({ data: { supported: [MODERN_VERSION], requested } });
const list = (changes: Changes) => modern('tools/list', {}, changes);
const listWith = (meta: object) => list({ meta });
const claiming = (version: string) =>
  list({ meta: { [V]: version }, headers: { 'mcp-protocol-version': version } });
const shown = JSON.stringify;

const REMOVED = [
  'initialize',
  'ping',
  'logging/setLevel',
  'resources/subscribe',
  'resources/unsubscribe',
  'tasks/result',
  'tasks/list',
];
const UNKNOWN = ['no/such', '', 'constructor', '__proto__', 'toString', 'sampling/createMessage'];

/** Streamable HTTP of 2026-07-28 (basic/transports), but for the headers that mirror the body. */
export const MODERN_RULES: Rule[] = [
  ['Sending Messages: a request is answered', modern('tools/list'), 200],
  ['Sending Messages: a string id stays one', list({ id: 'five' }), 200],
  ['Discovery: answered', modern('server/discover'), 200],
  [
    'No sessions: their headers are ignored',
    list({ headers: { 'mcp-session-id': 'x', 'last-event-id': 'x_1' } }),
    200,
  ],
  ['Request metadata: no protocolVersion, 400', listWith({ [V]: undefined }), 400, -32602],
  ['Request metadata: no clientCapabilities, 400', listWith({ [CAPABILITIES]: undefined }), 400, -32602],
  ['Request metadata: no clientInfo is fine', listWith({ [META.clientInfo]: undefined }), 200],
  ...[5, null, {}, [MODERN_VERSION], true].map(
    (value): Rule => [
      `Request metadata: protocolVersion ${shown(value)}, 400`,
      listWith({ [V]: value }),
      400,
      -32602,
    ],
  ),
  ...[5, null, 'x', [], true].map(
    (value): Rule => [
      `Request metadata: clientCapabilities ${shown(value)}, 400`,
      listWith({ [CAPABILITIES]: value }),
      400,
      -32602,
    ],
  ),
  ...['loud', '', 5, null, ['debug'], { level: 'debug' }].map(
    (level): Rule => [
      `Logging: level ${shown(level)}, 400`,
      listWith({ [META.logLevel]: level }),
      400,
      -32602,
    ],
  ),
  ['Logging: level debug', listWith({ [META.logLevel]: 'debug' }), 200],
  ['Version negotiation: not served, 400 with what is', claiming(OTHER), 400, -32022, unserved(OTHER)],
  [
    'Version negotiation: a legacy one in _meta, 400',
    claiming('2025-11-25'),
    400,
    -32022,
    unserved('2025-11-25'),
  ],
  [
    'Order of checks: version not served before missing headers',
    list({ meta: { [V]: OTHER }, without: ['mcp-protocol-version', 'mcp-method'] }),
    400,
    -32022,
  ],
  ['Order of checks: header mismatch before version not served', listWith({ [V]: OTHER }), 400, -32020],
  [
    'Order of checks: metadata before headers',
    list({ meta: { [CAPABILITIES]: undefined }, headers: { 'mcp-method': 'x' } }),
    400,
    -32602,
  ],
  [
    'Eras: modern header without a claim, 400',
    { headers: modernHeaders('tools/list'), body: message('tools/list') },
    400,
    -32602,
  ],
  [
    'Eras: the same, string id',
    { headers: modernHeaders('tools/list'), body: message('tools/list', {}, 'x') },
    400,
    -32602,
  ],
  [
    'Eras: the same, _meta without ours',
    { headers: modernHeaders('tools/list'), body: message('tools/list', { _meta: { progressToken: 1 } }) },
    400,
    -32602,
  ],
  [
    'Eras: modern header, initialize, 400',
    { headers: modernHeaders('initialize'), body: initialize('2025-11-25') },
    400,
    -32020,
  ],
  ['Eras: batch with a claim, 400', { body: [message('tools/list', CLAIM)] }, 400, -32600],
  [
    'Eras: batch with a claim among others, 400',
    { body: [message('ping'), message('tools/list', CLAIM)] },
    400,
    -32600,
  ],
  ...REMOVED.map((method): Rule => [`Removed: ${method}, 404`, modern(method), 404, -32601]),
  ...UNKNOWN.map((method): Rule => [`Unknown method ${shown(method)}, 404`, modern(method), 404, -32601]),
  ['Errors: of a tool, in band', modern('tools/call', { name: 'error' }), 200, -32602],
  ['Errors: unknown tool, in band', modern('tools/call', { name: 'nobody' }), 200, -32602],
  [
    'Notifications: 202',
    { headers: modernHeaders('notifications/x'), body: notification('notifications/x', CLAIM) },
    202,
  ],
  ['Notifications: without headers, 202', { body: notification('notifications/x', CLAIM) }, 202],
  [
    'Security Warning: Origin, 403',
    list({ headers: { origin: 'https://evil.example' } }),
    403,
    -32600,
    { id: null },
  ],
  ['Subscriptions: a client that reads no streams, 406', listening('application/json'), 406, -32600],
];

function listening(accept: string): Asked {
  return modern(
    'subscriptions/listen',
    { notifications: { toolsListChanged: true } },
    { headers: { accept } },
  );
}

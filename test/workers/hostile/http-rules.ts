import { BODY_MAX, type Headers, initialize, type Rule } from './rules.ts';

const BODY = initialize('2025-11-25');
const FOREIGN: Headers = { origin: 'https://evil.example' };
const PLAIN_TYPES = [
  'text/plain',
  'application/x-www-form-urlencoded',
  'multipart/form-data; boundary=x',
  'application/jsonp',
  'text/json',
  'x',
];
const NO_JSON = ['{', '', 'nul', '{"a":1,}', "{'a':1}", '\ufeff{}', '{"a":"\u0001"}', '{}{}'];

const origin = (name: string, value: string, status: number, code?: number): Rule => [
  `Security Warning: Origin ${name}, ${status}`,
  { headers: { origin: value }, body: BODY },
  status,
  ...(code === undefined ? ([] as []) : ([code] as [number])),
];

/** What both eras ask of HTTP itself. */
export const HTTP_RULES: Rule[] = [
  origin('not allowed', 'https://evil.example', 403, -32600),
  origin('"null"', 'null', 403, -32600),
  origin('that only begins like ours', 'http://localhost.evil.example', 403, -32600),
  origin('with ours as its user', 'http://localhost@evil.example', 403, -32600),
  origin('of this machine', 'http://localhost:6274', 200),
  ['Security Warning: Origin, GET, 403', { method: 'GET', headers: FOREIGN }, 403, -32600],
  ['Security Warning: Origin, DELETE, 403', { method: 'DELETE', headers: FOREIGN }, 403, -32600],
  ['Security Warning: Host not ours, 403', { headers: { host: 'evil.example' }, body: BODY }, 403, -32600],
  [
    'Security Warning: Host that begins like ours, 403',
    { headers: { host: '127.0.0.1.evil.example' }, body: BODY },
    403,
    -32600,
  ],
  ['Security Warning: Host with another port, 200', { headers: { host: 'localhost:1' }, body: BODY }, 200],
  [
    'RFC 9110 §15.5.7: Accept without JSON, 406',
    { headers: { accept: 'text/event-stream' }, body: BODY },
    406,
    -32600,
  ],
  [
    'RFC 9110 §15.5.7: Accept with q=0, 406',
    { headers: { accept: 'application/json;q=0' }, body: BODY },
    406,
    -32600,
  ],
  ['RFC 9110 §12.5.1: Accept */*, 200', { headers: { accept: '*/*' }, body: BODY }, 200],
  ...PLAIN_TYPES.map(
    (type): Rule => [
      `RFC 9110 §15.5.16: ${type}, 415`,
      { headers: { 'content-type': type }, body: BODY },
      415,
      -32600,
    ],
  ),
  ['RFC 9110 §15.5.16: no Content-Type, 415', { without: ['content-type'], body: BODY }, 415, -32600],
  [
    'RFC 9110 §8.3: charset, 200',
    { headers: { 'content-type': 'application/json; charset=utf-8' }, body: BODY },
    200,
  ],
  ['RFC 9110 §15.5.14: too large, 413', { body: `{"x":"${'x'.repeat(BODY_MAX)}"}` }, 413, -32600],
  ...NO_JSON.map(
    (body): Rule => [`JSON-RPC 2.0 §5.1: ${JSON.stringify(body)}, 400`, { body }, 400, -32700, { id: null }],
  ),
  ['RFC 8259 §8.1: not UTF-8, 400', { body: Buffer.from([0x22, 0xff, 0x22]) }, 400, -32700, { id: null }],
];

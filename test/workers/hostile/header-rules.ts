import { modernHeaders } from './helpers.ts';
import { modern } from './modern-rules.ts';
import type { Asked, Headers, Rule } from './rules.ts';

const MISMATCH = -32020;

/** The request's own headers, where they are wrong. */
const list = (headers: Headers, without: string[] = []) => modern('tools/list', {}, { headers, without });
/** A tool's name, or another's URI, under this `Mcp-Name`; without one it is left out. */
const pid = (name?: string) => modern('tools/call', { name: 'pid' }, named(name));
const read = (uri: string, name: string) => modern('resources/read', { uri }, named(name));
const named = (name?: string) =>
  name === undefined ? { without: ['mcp-name'] } : { headers: { 'mcp-name': name } };
const echo = (args: object, headers: Headers = {}) =>
  modern('tools/call', { name: 'echo', arguments: args }, { headers });
const base64 = (text: string) => `=?base64?${Buffer.from(text).toString('base64')}?=`;

/** Headers that mirror the body (2026-07-28, basic/transports, request headers). */
export const HEADER_RULES: Rule[] = [
  ['MCP-Protocol-Version: missing', list({}, ['mcp-protocol-version']), 400, MISMATCH],
  ['MCP-Protocol-Version: another, legacy', list({ 'mcp-protocol-version': '2025-11-25' }), 400, MISMATCH],
  ['MCP-Protocol-Version: another, unknown', list({ 'mcp-protocol-version': '2099-01-01' }), 400, MISMATCH],
  ['MCP-Protocol-Version: twice', list({ 'mcp-protocol-version': '2026-07-28, 2026-07-28' }), 400, MISMATCH],
  ['Mcp-Method: missing', list({}, ['mcp-method']), 400, MISMATCH],
  ['Mcp-Method: another', list({ 'mcp-method': 'tools/call' }), 400, MISMATCH],
  ['Mcp-Method: another case', list({ 'mcp-method': 'Tools/List' }), 400, MISMATCH],
  ['Mcp-Method: Base64 is not for it', list({ 'mcp-method': base64('tools/list') }), 400, MISMATCH],
  ['Mcp-Name: missing, tools/call', pid(), 400, MISMATCH],
  ['Mcp-Name: missing, prompts/get', modern('prompts/get', { name: 'p' }, named()), 400, MISMATCH],
  [
    'Mcp-Name: missing, resources/read',
    modern('resources/read', { uri: 'file:///a' }, named()),
    400,
    MISMATCH,
  ],
  ['Mcp-Name: the URI of resources/read', modern('resources/read', { uri: 'file:///a' }), 200],
  ['Mcp-Name: the name of prompts/get', modern('prompts/get', { name: 'p' }), 200],
  ['Mcp-Name: another', pid('echo'), 400, MISMATCH],
  ['Mcp-Name: another case', pid('PID'), 400, MISMATCH],
  ['Mcp-Name: none in the body', modern('tools/call', {}, named('pid')), 400, MISMATCH],
  ['Mcp-Name: white space around it', pid(' \tpid\t '), 200],
  ['Mcp-Name: Base64', pid(base64('pid')), 200],
  ['Mcp-Name: Base64 beyond ASCII', read('file:///é😀 ', base64('file:///é😀 ')), 200],
  ['Mcp-Name: Base64 of another', pid(base64('echo')), 400, MISMATCH],
  ['Mcp-Name: Base64 without its padding', read('echo', '=?base64?ZWNobw?='), 400, MISMATCH],
  ['Mcp-Name: Base64 of the URL alphabet', read('a:???', '=?base64?YTo_Pz8=?='), 400, MISMATCH],
  ['Mcp-Name: Base64 with a blank', pid('=?base64?cG lk?='), 400, MISMATCH],
  ['Mcp-Name: Base64 that is not UTF-8', read('\ufffd', '=?base64?/w==?='), 400, MISMATCH],
  ['Mcp-Name: markers of another case are literal', pid('=?BASE64?cGlk?='), 400, MISMATCH],
  ['Mcp-Name: without the suffix it is literal', modern('resources/read', { uri: '=?base64?cGlk' }), 200],
  ['Mcp-Name: a name that looks encoded', read('=?base64?cGlk?=', base64('=?base64?cGlk?=')), 200],
  // As a header carries bytes: one character each.
  ['Mcp-Name: raw UTF-8 is not the name', read('é', Buffer.from('é').toString('latin1')), 400, MISMATCH],
  ['Mcp-Param: equal', echo({ text: 'a' }, { 'mcp-param-text': 'a' }), 200],
  ['Mcp-Param: missing', echo({ text: 'a' }), 400, MISMATCH],
  ['Mcp-Param: differs', echo({ text: 'a' }, { 'mcp-param-text': 'b' }), 400, MISMATCH],
  ['Mcp-Param: Base64', echo({ text: 'é\n' }, { 'mcp-param-text': base64('é\n') }), 200],
  ['Mcp-Param: bad Base64', echo({ text: 'a' }, { 'mcp-param-text': '=?base64?Y?=' }), 400, MISMATCH],
  ['Mcp-Param: empty string', echo({ text: '' }, { 'mcp-param-text': '' }), 200],
  ['Mcp-Param: without the argument', echo({}, { 'mcp-param-text': 'a' }), 400, MISMATCH],
  ['Mcp-Param: null is not sent', echo({ text: null }), 200],
  ['Mcp-Param: integer', echo({ count: 42 }, { 'mcp-param-count': '42' }), 200],
  ['Mcp-Param: negative integer', echo({ count: -7 }, { 'mcp-param-count': '-7' }), 200],
  ['Mcp-Param: integer differs', echo({ count: 42 }, { 'mcp-param-count': '43' }), 400, MISMATCH],
  ['Mcp-Param: integers are compared as numbers', echo({ count: 42 }, { 'mcp-param-count': '042' }), 200],
  ['Mcp-Param: integer, not hexadecimal', echo({ count: 16 }, { 'mcp-param-count': '0x10' }), 400, MISMATCH],
  ['Mcp-Param: integer, not empty', echo({ count: 0 }, { 'mcp-param-count': '' }), 400, MISMATCH],
  ['Mcp-Param: integer beyond 2^53, equal', bigCount('9007199254740993', '9007199254740993'), 200],
  [
    'Mcp-Param: integer beyond 2^53, not rounded',
    bigCount('9007199254740992', '9007199254740993'),
    400,
    MISMATCH,
  ],
  ['Mcp-Param: boolean', echo({ flag: false }, { 'mcp-param-flag': 'false' }), 200],
  ['Mcp-Param: boolean differs', echo({ flag: false }, { 'mcp-param-flag': 'true' }), 400, MISMATCH],
  ['Mcp-Param: nested', echo({ nested: { key: 'k' } }, { 'mcp-param-nested': 'k' }), 200],
  ['Mcp-Param: nested, missing', echo({ nested: { key: 'k' } }), 400, MISMATCH],
  ['Mcp-Param: no annotation on "number"', echo({ ratio: 1.5 }), 200],
  ['Mcp-Param: that no schema knows', echo({}, { 'mcp-param-unknown': 'x' }), 200],
];

/** An integer that only its text shows whole. */
function bigCount(argument: string, header: string): Asked {
  const headers = { ...modernHeaders('tools/call', 'echo'), 'mcp-param-count': header };
  return {
    headers,
    body: JSON.stringify(echo({ count: 1 }).body).replace('"count":1', `"count":${argument}`),
  };
}

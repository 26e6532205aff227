import { MeshError } from '../mesh/errors.ts';
import { type GrantRule, type Grants, isUnrestricted, type Kind, mayUse } from '../mesh/grants.ts';
import { applyEdits, elementsOf, memberAt, membersOf } from '../mesh/json-text.ts';
import { isObject, type RpcRequest } from '../mesh/jsonrpc.ts';
import { spellingsOf } from '../mesh/resource-uri.ts';
import { countsTools } from '../mesh/role-limits.ts';
import type { WireText } from '../mesh/wire-text.ts';
import type { Caller } from './caller.ts';

interface Use {
  kind: Kind;
  name: unknown;
}

/** What a request is about, where it is about one thing. */
const USES: Readonly<Record<string, (params: RpcRequest['params']) => Use>> = {
  'tools/call': ({ name }) => ({ kind: 'tools', name }),
  'prompts/get': ({ name }) => ({ kind: 'prompts', name }),
  'resources/read': ({ uri }) => ({ kind: 'resources', name: uri }),
  'resources/subscribe': ({ uri }) => ({ kind: 'resources', name: uri }),
  'completion/complete': ({ ref }) => {
    if (!isObject(ref)) return { kind: 'prompts', name: undefined };
    return ref.type === 'ref/prompt'
      ? { kind: 'prompts', name: ref.name }
      : { kind: 'resources', name: ref.uri };
  },
};

/** Lists: the member of the result, and the key of an item that names it. */
const LISTS: Readonly<Record<string, { kind: Kind; member: string; key: string }>> = {
  'tools/list': { kind: 'tools', member: 'tools', key: 'name' },
  'prompts/list': { kind: 'prompts', member: 'prompts', key: 'name' },
  'resources/list': { kind: 'resources', member: 'resources', key: 'uri' },
  'resources/templates/list': { kind: 'resources', member: 'resourceTemplates', key: 'uriTemplate' },
};

/** Of the protocol itself: they reach nothing that a grant could be about. */
const HARMLESS = new Set([
  'ping',
  'logging/setLevel',
  'resources/unsubscribe',
  'server/discover',
  'initialize',
]);

/** Members that grants and limits go by, of a request, of its `params` and of a completion's `ref`. */
const JUDGED = new Set(['jsonrpc', 'id', 'method', 'params', 'name', 'uri', 'ref', 'type', 'arguments']);
const INVISIBLE = /[\p{C}\p{Z}]/gu;
/** Denials in their folded spelling; grants come from the identity, which is shared by the calls of half a minute. */
const denials = new WeakMap<Grants, Grants>();

/**
 * Refuses what the caller's grants do not cover; what exists is not looked at, so a refusal tells nothing of it.
 * @throws MeshError `forbidden`; `invalid_request` when another parser might read another name in it
 */
export function requireGrant(
  request: RpcRequest,
  { grants, limits }: Pick<Caller, 'grants' | 'limits'>,
): void {
  const { method, params } = request;
  const unrestricted = isUnrestricted(grants);
  if (unrestricted && !countsTools(limits)) return;
  refuseAmbiguity(request);
  if (unrestricted || Object.hasOwn(LISTS, method) || HARMLESS.has(method)) return;
  const use = Object.hasOwn(USES, method) ? USES[method]?.(params) : undefined;
  if (!use) {
    throw new MeshError('forbidden', { detail: `${method} needs a role that allows the whole service` });
  }
  const { kind, name } = use;
  // A lenient server may take ["x"] for "x".
  if (typeof name === 'string' && isGranted(grants, kind, name)) return;
  const detail = `your roles do not allow the ${kind.slice(0, -1)} ${JSON.stringify(name ?? null).slice(0, 200)}`;
  throw new MeshError('forbidden', { detail });
}

/**
 * Whether a caller may see and use it. Allowed is what is written as the policy has it; denied is what a lenient server
 * may take for a denied name: in capitals, between blanks, in letters of another width (NFKC).
 */
export function isGranted(grants: Grants, kind: Kind, name: string): boolean {
  if (!mayUse(grants, kind, name)) return false;
  if (!grants.deny.some(rule => rule[kind])) return true;
  const spellings = kind === 'resources' ? (spellingsOf(name) ?? []) : [name];
  const folded = new Set(spellings.map(spelling => fold(spelling).trim()));
  return [...folded].every(spelling => mayUse(foldedDenials(grants), kind, spelling));
}

/** A response's text without the listed items that the caller may not use; all else stays as the server wrote it. */
export function showGranted(method: string, response: WireText, grants: Grants): WireText {
  const list = Object.hasOwn(LISTS, method) ? LISTS[method] : undefined;
  if (!list || isUnrestricted(grants)) return response;
  const responseText = response.toString();
  const span = memberAt(responseText, ['result', list.member]);
  if (!span || responseText[span.start] !== '[') return responseText;
  const items = elementsOf(responseText, span.start).map(({ start, end }) => responseText.slice(start, end));
  const granted = items.filter(text => {
    const item: unknown = JSON.parse(text);
    const name = isObject(item) ? item[list.key] : undefined;
    return typeof name === 'string' && isGranted(grants, list.kind, name);
  });
  if (granted.length === items.length) return responseText;
  return applyEdits(responseText, [{ start: span.start, end: span.end, json: `[${granted.join(',')}]` }]);
}

/**
 * Go's JSON parsers take `Name`, `name\0` and, in `paramſ`, another letter for a member of the request, the last of them
 * (CVE-2026-27896, GHSA-q382-vc8q-7jhj); others take the first of two equal ones. Equal ones of the request and its
 * params were refused when it was read.
 */
function refuseAmbiguity({ text: source, method, params }: RpcRequest): void {
  const text = source.toString();
  const inParams = memberAt(text, ['params']);
  const inRef = isObject(params.ref) ? memberAt(text, ['params', 'ref']) : undefined;
  const ref = inRef ? membersOf(text, inRef.start).map(({ key }) => key) : [];
  const keys = [...membersOf(text), ...(inParams ? membersOf(text, inParams.start) : [])].map(
    ({ key }) => key,
  );
  const other = [...keys, ...ref].find(key => !JUDGED.has(key) && JUDGED.has(meantBy(key)));
  if (other !== undefined)
    throw invalid(`member ${JSON.stringify(other)} must be written "${meantBy(other)}"`);
  if (new Set(ref).size < ref.length) throw invalid('a member stands twice in "ref"');
  if (method === 'tools/call' && typeof params.name !== 'string') throw invalid('"name" must be a string');
}

function foldedDenials(grants: Grants): Grants {
  const known = denials.get(grants);
  if (known) return known;
  const foldAll = (rule: GrantRule): GrantRule =>
    Object.fromEntries(Object.entries(rule).map(([kind, patterns]) => [kind, patterns.map(fold)]));
  const folded = { allow: [{}], deny: grants.deny.map(foldAll) };
  denials.set(grants, folded);
  return folded;
}

function meantBy(key: string): string {
  return fold(key).replace(INVISIBLE, '');
}

function fold(text: string): string {
  return text.normalize('NFKC').toLowerCase();
}

function invalid(detail: string): MeshError {
  return new MeshError('invalid_request', { detail });
}

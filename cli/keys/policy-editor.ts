import { type Document, isMap, isSeq, parseDocument, type YAMLMap, YAMLSeq } from 'yaml';
import { type AccessPolicy, parseAccessPolicy } from '../../mesh/access-policy.ts';
import { suggestion } from '../../mesh/yaml-faults.ts';

/** Changes to the API keys in the text of an access policy; comments and the order of all else stay. */

export interface KeyFields {
  id: string;
  /** `sha256:<hex>` */
  hash: string;
  roles: string[];
  /** Date or time (ISO 8601). */
  expires: string | undefined;
}

interface Renewal {
  hash: string;
  /** How long the present key stays valid, in ms. */
  keepMs: number;
  /** Another end of the holder's access; null: none; undefined: as it is. */
  expires: string | null | undefined;
  /** Milliseconds since the epoch. */
  now: number;
}

interface Former {
  hash: string;
  expires: string;
}

/** @throws AccessPolicyError when the policy is broken, Error when the id is taken or a role is unknown */
export function addKey(text: string, path: string, { id, hash, roles, expires }: KeyFields): string {
  return edit(text, path, (document, policy) => {
    if (policy.apiKeys.some(key => key.id === id)) {
      throw new Error(
        `${path}: there is a key of "${id}" already; \`mesh keys rotate ${id}\` gives it another`,
      );
    }
    const names = [...policy.roles.keys()];
    for (const role of roles) {
      if (names.includes(role)) continue;
      throw new Error(
        `${path}: unknown role "${role}"${suggestion(role, names)}; there are: ${names.join(', ') || 'none'}`,
      );
    }
    const entry = document.createNode({ id, hash, roles, ...(expires === undefined ? {} : { expires }) });
    (entry.get('roles') as YAMLSeq).flow = true;
    const list = keyList(document, path);
    if (list.items.length === 0) list.flow = false;
    list.add(entry);
  });
}

/** Takes out an id with all of its keys. @throws AccessPolicyError when the policy is broken, Error for an unknown id */
export function removeKey(text: string, path: string, id: string): string {
  return edit(text, path, (document, policy) => {
    const list = keyList(document, path);
    list.items.splice(list.items.indexOf(findEntry(list, policy, path, id)), 1);
    if (list.items.length === 0) list.flow = true;
  });
}

/**
 * Gives an id another key. The present one moves to `previous` until `keepMs` have passed; with 0 it ends at once, and
 * with it those before it: that is what one does with keys that got out.
 * @throws AccessPolicyError when the policy is broken, Error for an unknown id or one that has expired
 */
export function renewKey(text: string, path: string, id: string, renewal: Renewal): string {
  return edit(text, path, (document, policy) => {
    const entry = findEntry(keyList(document, path), policy, path, id);
    const { hash, expires, previous = [] } = entry.toJS(document) as Former & { previous?: Former[] };
    const end = expires ? Date.parse(expires) : Number.POSITIVE_INFINITY;
    if (renewal.expires === undefined && end <= renewal.now) {
      throw new Error(`${path}: "${id}" expired on ${expires}; --expires gives it another end (or "never")`);
    }
    const until = Math.min(renewal.now + renewal.keepMs, end);
    const kept = [{ hash, expires: toSeconds(until) }, ...previous].filter(
      former => renewal.keepMs > 0 && Date.parse(former.expires) > renewal.now,
    );
    entry.set('hash', renewal.hash);
    if (renewal.expires === null) entry.delete('expires');
    else if (renewal.expires !== undefined) entry.set('expires', renewal.expires);
    if (kept.length > 0) entry.set('previous', document.createNode(kept));
    else entry.delete('previous');
  });
}

/** A time as the policy writes it: ISO 8601 in UTC, whole seconds. */
export function toSeconds(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, 'Z');
}

/** Checks before, so that faults are those of the file, and after, so that none is added. */
function edit(
  text: string,
  path: string,
  change: (document: Document, policy: AccessPolicy) => void,
): string {
  const { policy } = parseAccessPolicy(text, { path });
  const document = parseDocument(text);
  change(document, policy);
  // Long lines stay as they are.
  const changed = document.toString({ lineWidth: 0 });
  parseAccessPolicy(changed, { path: `${path} (as changed)` });
  return text.includes('\r\n') ? changed.replaceAll('\n', '\r\n') : changed;
}

function keyList(document: Document, path: string): YAMLSeq {
  const present = document.get('api_keys', true);
  if (isSeq(present)) return present;
  if (document.toJS()?.api_keys)
    throw new Error(`${path}: api_keys is an alias; write the list in its place`);
  const list = new YAMLSeq();
  document.set('api_keys', list);
  return list;
}

function findEntry(list: YAMLSeq, policy: AccessPolicy, path: string, id: string): YAMLMap {
  const entry = list.items.find((item): item is YAMLMap => isMap(item) && item.get('id') === id);
  if (entry) return entry;
  const ids = [...new Set(policy.apiKeys.map(key => key.id))];
  if (ids.includes(id))
    throw new Error(`${path}: the key of "${id}" is written as an alias; change it by hand`);
  throw new Error(
    `${path}: there is no key of "${id}"${suggestion(id, ids)}; there are: ${ids.join(', ') || 'none'}`,
  );
}

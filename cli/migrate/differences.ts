import { isObject } from '../../mesh/jsonrpc.ts';

/** Something that the two ways say differently. */
export interface Difference {
  /** What it is about: `tool-schema`, `answer`, … */
  kind: string;
  /** Of the tool, prompt, resource or capability. */
  name: string;
  /** Where in it, as JSON pointer (RFC 6901); empty: all of it. */
  path: string;
  /** undefined: it is not there. */
  old: unknown;
  new: unknown;
}

/** A place where two values differ. */
export interface Change {
  path: string;
  old: unknown;
  new: unknown;
}

/** Lists whose order means nothing (JSON Schema 2020-12, validation §6.1 and §6.5.3). */
const UNORDERED = new Set(['required', 'enum', 'type']);

/** Where two JSON values differ; the order of keys does not matter. */
export function changesBetween(old: unknown, next: unknown, path = ''): Change[] {
  if (isObject(old) && isObject(next)) {
    const keys = [...new Set([...Object.keys(old), ...Object.keys(next)])].sort();
    return keys.flatMap(key => {
      const at = `${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`;
      const [a, b] = [own(old, key), own(next, key)];
      return UNORDERED.has(key) ? changesBetween(sorted(a), sorted(b), at) : changesBetween(a, b, at);
    });
  }
  if (Array.isArray(old) && Array.isArray(next) && old.length === next.length)
    return old.flatMap((item, i) => changesBetween(item, next[i], `${path}/${i}`));
  return same(old, next) ? [] : [{ path, old, new: next }];
}

function own(object: Record<string, unknown>, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

function sorted(value: unknown): unknown {
  return Array.isArray(value) && value.every(item => !isObject(item) && !Array.isArray(item))
    ? value.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
    : value;
}

/** Of values that are not both objects, nor lists of one length. */
function same(a: unknown, b: unknown): boolean {
  return a === b || (a !== undefined && b !== undefined && JSON.stringify(a) === JSON.stringify(b));
}

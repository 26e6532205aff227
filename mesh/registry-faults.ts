import leven from 'leven';
import { type Document, isMap, isNode, isScalar, type LineCounter } from 'yaml';
import type { z } from 'zod';
import { isObject } from './jsonrpc.ts';
import { registrySchema, serviceSchema } from './registry-schema.ts';

export type Path = readonly PropertyKey[];

/** Something wrong at one place of the registry file. */
export interface Fault {
  path: Path;
  /** Points at the key itself (unknown key), not at its value. */
  atKey?: boolean;
  message: string;
}

const SUGGESTION_DISTANCE = 3;

/** A schema issue as faults; `at` is where the parsed value stands in the file. */
export function toFaults(issue: z.core.$ZodIssue, at: Path): Fault[] {
  const path = [...at, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(path);
    return issue.keys.map(key => ({
      path: [...path, key],
      atKey: true,
      message: `unknown key${suggestion(key, known)}`,
    }));
  }
  if (issue.code === 'invalid_type' && issue.input === undefined) {
    return [{ path, message: `is missing; give it a value (${issue.expected})` }];
  }
  if (issue.code === 'invalid_value' && typeof issue.input === 'string') {
    const hint = suggestion(issue.input, issue.values.map(String));
    return [{ path, message: `"${issue.input}" is not one of ${issue.values.join(', ')}${hint}` }];
  }
  return [{ path, message: lowerFirst(issue.message) }];
}

/** Keys that the schema knows at a path, for "did you mean". */
function knownKeys(path: Path): string[] {
  const inService = path[0] === 'mcp_services';
  let schema: unknown = inService ? serviceSchema : registrySchema;
  for (const key of inService ? path.slice(2) : path) {
    schema = (unwrap(schema) as { shape?: Record<PropertyKey, unknown> })?.shape?.[key];
  }
  return Object.keys((unwrap(schema) as { shape?: object })?.shape ?? {});
}

function unwrap(schema: unknown): unknown {
  let inner = schema as { unwrap?: () => unknown; options?: unknown[] } | undefined;
  while (typeof inner?.unwrap === 'function') inner = inner.unwrap() as typeof inner;
  return inner?.options?.findLast(option => isObject(option) && 'shape' in option) ?? inner;
}

/** `; did you mean "…"?` for the nearest known word, or nothing when none is near. */
export function suggestion(word: string, known: readonly string[]): string {
  const nearest = known.toSorted((a, b) => leven(word, a) - leven(word, b))[0];
  if (nearest === undefined || leven(word, nearest) > SUGGESTION_DISTANCE) return '';
  return `; did you mean "${nearest}"?`;
}

/** `file:line: field: message` */
export function toText(fault: Fault, file: string, document: Document, lines: LineCounter): string {
  return `${file}:${lineOf(document, lines, fault)}: ${describeFault(fault)}`;
}

/** `field: message` */
export function describeFault(fault: Fault): string {
  const field = fault.path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    return text === '' ? String(key) : `${text}.${String(key)}`;
  }, '');
  return field === '' ? fault.message : `${field}: ${fault.message}`;
}

/** Line of the deepest node on the way to the fault: what is missing is reported at what should hold it. */
function lineOf(document: Document, lines: LineCounter, fault: Fault): number {
  let node: unknown = document.contents;
  let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
  for (const [depth, key] of fault.path.entries()) {
    const last = depth === fault.path.length - 1;
    const pair = isMap(node)
      ? node.items.find(item => isScalar(item.key) && item.key.value === key)
      : undefined;
    if (pair && last && fault.atKey) return lines.linePos((pair.key as { range: [number] }).range[0]).line;
    node = pair
      ? pair.value
      : isNode(node) && 'get' in node
        ? (node.get as (k: unknown, keep: true) => unknown)(key, true)
        : undefined;
    if (!isNode(node) || !node.range) break;
    offset = node.range[0];
  }
  return lines.linePos(offset).line;
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

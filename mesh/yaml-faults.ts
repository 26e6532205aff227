import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { isObject } from './jsonrpc.ts';
import { suggestion } from './suggestion.ts';

export { suggestion };

/** What is wrong in a YAML file of ours, and where: the registry and the access policy speak of it alike. */

export type Path = readonly PropertyKey[];

/** Something wrong at one place of the file. */
export interface Fault {
  path: Path;
  /** Points at the key itself (unknown key), not at its value. */
  atKey?: boolean;
  message: string;
}

interface ParsedYaml {
  /** The file's value; `{}` when it is empty or broken. */
  value: unknown;
  /** `file:line: what` of everything that is not YAML. */
  errors: string[];
  /** `file:line: field: message` */
  toText(fault: Fault): string;
}

/** Parses the text of a YAML file; `path` is what its errors call it. */
export function parseYaml(text: string, path: string): ParsedYaml {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const toText = (fault: Fault) => `${path}:${lineOf(document, lines, fault)}: ${describeFault(fault)}`;
  const errors = document.errors.map(
    error => `${path}:${lines.linePos(error.pos[0]).line}: ${error.message}`,
  );
  if (errors.length > 0) return { value: {}, errors, toText };
  try {
    return { value: document.toJS() ?? {}, errors, toText };
  } catch (error) {
    // Aliases that multiply ("billion laughs"), or that name no anchor.
    return { value: {}, errors: [`${path}:1: ${(error as Error).message}`], toText };
  }
}

/** A schema issue as faults; `at` is where the value that `schema` checked stands in the file. */
export function toFaults(issue: z.core.$ZodIssue, at: Path, schema: z.ZodType): Fault[] {
  const path = [...at, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(schema, issue.path);
    return issue.keys.map(key => ({
      path: [...path, key],
      atKey: true,
      message: `unknown key${suggestion(key, known)}`,
    }));
  }
  if (issue.code === 'invalid_key') {
    const message = issue.issues[0]?.message ?? issue.message;
    return [{ path, atKey: true, message: lowerFirst(message) }];
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
function knownKeys(schema: unknown, path: Path): string[] {
  const found = path.reduce<unknown>((outer, key) => {
    const { element, valueType, shape } = (unwrap(outer) ?? {}) as Record<string, unknown>;
    return element ?? valueType ?? (shape as Record<PropertyKey, unknown> | undefined)?.[key];
  }, schema);
  return Object.keys((unwrap(found) as { shape?: object } | undefined)?.shape ?? {});
}

/** The schema inside optional, default and the like; of a union, its last object. */
function unwrap(schema: unknown): unknown {
  let inner = schema as { unwrap?: () => unknown; options?: unknown[]; element?: unknown } | undefined;
  while (typeof inner?.unwrap === 'function' && inner.element === undefined) {
    inner = inner.unwrap() as typeof inner;
  }
  return inner?.options?.findLast(option => isObject(option) && 'shape' in option) ?? inner;
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
      ? node.items.find(item => isScalar(item.key) && String(item.key.value) === key)
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

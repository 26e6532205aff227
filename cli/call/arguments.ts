import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { suggestion } from '../../mesh/suggestion.ts';
import { UsageError } from '../command.ts';
import { describeTypes, propertyOf, resolve, type Schema, typesOf } from './schema.ts';
import { readValue } from './value.ts';

/** A tool as `tools/list` tells of it; what is not as it should be is left out. */
export interface Tool {
  name: string;
  description: string;
  inputSchema: Schema;
}

/**
 * The arguments of `--arg name=value`, each read as the tool's schema says. `a.b=v` is a member of the object `a`; an
 * array may be given as JSON, or item by item by repeating the name.
 * @throws UsageError for what the schema does not have, does not allow, or wants and has not been given
 */
export function buildArguments(pairs: readonly string[], { name: tool, inputSchema }: Tool): JsonObject {
  const built = blank();
  for (const pair of pairs) {
    const cut = pair.indexOf('=');
    if (cut < 1) throw new UsageError(`--arg: "${pair}" is not of the form name=value`);
    const name = pair.slice(0, cut);
    const path = pathOf(name, inputSchema);
    place(built, path, { name, text: pair.slice(cut + 1), tool, root: inputSchema });
  }
  checkRequired(built, { name: tool, inputSchema });
  return built;
}

interface Given {
  name: string;
  text: string;
  tool: string;
  root: Schema;
}

/** A property may have a dot in its name; else a dot leads into an object. */
function pathOf(name: string, schema: Schema): string[] {
  const known = isObject(schema.properties) && Object.hasOwn(schema.properties, name);
  return known || name.split('.').includes('') ? [name] : name.split('.');
}

function place(built: JsonObject, path: readonly string[], given: Given): void {
  const { root, name } = given;
  let target = built;
  let schema: Schema | undefined = root;
  const outer = path.slice(0, -1);
  const last = path.at(-1) ?? name;
  for (const [depth, key] of outer.entries()) {
    schema = schema && memberOf(schema, key, given, path.slice(0, depth));
    const types = schema && typesOf(schema, root);
    if (types && !types.has('object'))
      throw new UsageError(`--arg ${name}: "${key}" is no object but ${describeTypes(types)}`);
    target[key] ??= blank();
    if (!isObject(target[key]))
      throw new UsageError(`--arg ${name}: "${key}" has been given as a whole already`);
    target = target[key];
  }
  put(target, last, schema && memberOf(schema, last, given, outer), given);
}

function put(target: JsonObject, key: string, schema: Schema | undefined, { name, text, root }: Given): void {
  const types = schema && typesOf(schema, root);
  const isItem = types?.has('array') && !types.has('string') && !text.trimStart().startsWith('[');
  const present = Object.hasOwn(target, key) ? target[key] : undefined;
  if (schema && isItem) {
    if (present !== undefined && !Array.isArray(present)) throw new UsageError(`--arg ${name} stands twice`);
    const items = isObject(schema.items) ? resolve(schema.items, root) : undefined;
    target[key] = [...(present ?? []), readValue(name, text, items, root)];
    return;
  }
  if (present !== undefined) throw new UsageError(`--arg ${name} stands twice, and is no list`);
  target[key] = readValue(name, text, schema, root);
}

/** The schema of a member; undefined when it may be anything. */
function memberOf(
  schema: Schema,
  key: string,
  { name, tool, root }: Given,
  at: readonly string[],
): Schema | undefined {
  const { schema: found, known, isOpen } = propertyOf(schema, key, root);
  if (found || isOpen) return found;
  const whole = (one: string) => [...at, one].join('.');
  const names = known.map(whole);
  const there = names.length === 0 ? 'it has none' : `there are: ${names.join(', ')}`;
  const hint = suggestion(whole(key), names);
  throw new UsageError(`--arg ${name}: "${tool}" has no argument "${whole(key)}"${hint}; ${there}`);
}

function checkRequired(built: JsonObject, { name, inputSchema }: Omit<Tool, 'description'>): void {
  const required = Array.isArray(inputSchema.required) ? inputSchema.required : [];
  const missing = required.filter(key => typeof key === 'string' && !Object.hasOwn(built, key));
  if (missing.length === 0) return;
  const list = missing.map(key => `"${key}"`).join(', ');
  throw new UsageError(`"${name}" wants ${list}; give it by --arg ${missing[0]}=…`);
}

/** Without a prototype, so that `__proto__` is a name as any other. */
function blank(): JsonObject {
  return Object.create(null) as JsonObject;
}

import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';

/** A JSON Schema, as far as the command line understands it: what it does not, may be anything. */
export type Schema = JsonObject;

const TYPES = ['string', 'number', 'integer', 'boolean', 'array', 'object', 'null'];
/** References may go round in circles. */
const DEPTH_MAX = 8;

/** The schema behind its references within the same document (`#/$defs/…`). */
export function resolve(schema: Schema, root: Schema): Schema {
  let found = schema;
  for (let depth = 0; typeof found.$ref === 'string' && depth < DEPTH_MAX; depth += 1) {
    const target = follow(found.$ref, root);
    if (!target) return {};
    found = target;
  }
  return found;
}

/** What types its values may have; undefined: any. */
export function typesOf(schema: Schema, root: Schema, depth = 0): Set<string> | undefined {
  const { type, const: only, enum: values, anyOf, oneOf } = resolve(schema, root);
  if (typeof type === 'string') return new Set([type]);
  if (Array.isArray(type)) return new Set(type.filter(one => TYPES.includes(String(one))).map(String));
  const all = Array.isArray(values) ? values : only === undefined ? undefined : [only];
  if (all) return new Set(all.map(typeOf));
  const choices = Array.isArray(anyOf) ? anyOf : oneOf;
  if (!Array.isArray(choices) || depth >= DEPTH_MAX) return undefined;
  const each = choices.map(choice => (isObject(choice) ? typesOf(choice, root, depth + 1) : undefined));
  return each.reduce((all, types) => (all && types ? all.union(types) : undefined), new Set<string>());
}

/** Values that a schema lists, when all are strings. */
export function choicesOf(schema: Schema, root: Schema): string[] | undefined {
  const { enum: values } = resolve(schema, root);
  const strings = Array.isArray(values) ? values.filter(value => typeof value === 'string') : [];
  return strings.length > 0 && strings.length === (values as unknown[]).length ? strings : undefined;
}

/** What a schema says of one member of its objects. */
export function propertyOf(
  schema: Schema,
  key: string,
  root: Schema,
): { schema: Schema | undefined; known: string[]; isOpen: boolean } {
  const { properties, additionalProperties: others, patternProperties } = resolve(schema, root);
  const known = isObject(properties) ? properties : {};
  const has = Object.hasOwn(known, key);
  const found = has ? known[key] : others;
  // The default of JSON Schema is to allow others; a tool that names its arguments hardly means that.
  const allowsOthers =
    others === true ||
    isObject(others) ||
    isObject(patternProperties) ||
    (others !== false && !isObject(properties));
  return {
    schema: isObject(found) ? resolve(found, root) : undefined,
    known: Object.keys(known),
    isOpen: has || allowsOthers,
  };
}

/** Types as they stand in a schema: `string`, `number or null`. */
export function describeTypes(types: ReadonlySet<string> | undefined): string {
  return types === undefined || types.size === 0 ? 'anything' : [...types].join(' or ');
}

function follow(reference: string, root: Schema): Schema | undefined {
  if (reference === '#') return root;
  if (!reference.startsWith('#/')) return undefined;
  const parts = reference.slice(2).split('/');
  const target = parts.reduce<unknown>((outer, part) => {
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
    return isObject(outer) && Object.hasOwn(outer, key) ? outer[key] : undefined;
  }, root);
  return isObject(target) ? target : undefined;
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return typeof value;
}

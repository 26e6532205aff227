import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';

/** Where a schema node stands in its own resource (JSON Schema 2020-12 Core §4.3.5), and in the document. */
interface Place {
  /** URIs of the resources that it is part of, with its JSON pointer in each: its own one, and the outermost. */
  within: { base: string; pointer: string }[];
  target: string;
  depth: number;
}

interface Reference {
  node: JsonObject;
  base: string;
  uri: string;
}

const ROOT = 'mcp-tool:///schema';
/** Deeper than people write; a schema that goes on is cut there, where everything fits. */
const DEPTH_MAX = 64;
const MAPS = new Set(['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas']);
const LISTS = new Set(['allOf', 'anyOf', 'oneOf', 'prefixItems']);
const SINGLES = new Set([
  'items',
  'additionalProperties',
  'not',
  'if',
  'then',
  'else',
  'contains',
  'propertyNames',
  'unevaluatedItems',
  'unevaluatedProperties',
  'contentSchema',
]);
/** The document has one base and one dialect; what they named is referred to by its place. */
const NAMES = new Set([
  '$schema',
  '$id',
  '$anchor',
  '$dynamicAnchor',
  '$recursiveAnchor',
  '$vocabulary',
  '$async',
]);
const REFERENCES = new Set(['$ref', '$dynamicRef', '$recursiveRef']);

/**
 * A tool's schema as part of an OpenAPI 3.1 document: `at` is the JSON pointer, as a fragment, that it will have there.
 * References are made to point into the document, by whatever name they did; one that leads out of the schema stands
 * as `x-unresolved-ref`, and data that looks like one is left out, so that nobody who reads the document fetches what a
 * server named. Lists in `items` and
 * `dependencies` (draft-07) become what 2020-12 has for them.
 */
export function embedSchema(schema: unknown, at: string): unknown {
  const embedding = new Embedding();
  const place = { within: [{ base: ROOT, pointer: '' }], target: at, depth: 0 };
  const embedded = embedding.embed(schema, place);
  embedding.resolve();
  return embedded;
}

class Embedding {
  /** Places in the document by URI, with the pointer or anchor as its fragment. */
  readonly #targets = new Map<string, string>();
  readonly #references: Reference[] = [];

  embed(schema: unknown, place: Place): unknown {
    if (typeof schema === 'boolean') return schema;
    if (!isObject(schema) || place.depth > DEPTH_MAX) return {};
    const here = this.#enter(schema, place);
    const node: JsonObject = Object.fromEntries(
      Object.entries(modernize(schema))
        .filter(
          ([key, value]) =>
            !NAMES.has(key) && !REFERENCES.has(key) && (holdsSchemas(key, value) || isPlain(value)),
        )
        .map(([key, value]) => [key, this.#embedMember(key, value, here, schema)]),
    );
    const base = here.within[0]?.base ?? ROOT;
    for (const key of REFERENCES) {
      const uri = schema[key];
      if (typeof uri === 'string') this.#references.push({ node, base, uri });
    }
    return node;
  }

  /** When all places are known. */
  resolve(): void {
    for (const { node, base, uri } of this.#references) {
      const target = this.#targets.get(canonical(uri, base) ?? '');
      if (target === undefined) node['x-unresolved-ref'] = uri;
      else node.$ref = target;
    }
  }

  /** Takes down by which names the node can be referred to; a node with an `$id` begins a resource of its own. */
  #enter(schema: JsonObject, place: Place): Place {
    const { $id } = schema;
    const outer = place.within[0]?.base ?? ROOT;
    const id = typeof $id === 'string' ? canonical($id, outer) : undefined;
    const [base = '', anchor = ''] = id?.split('#', 2) ?? [];
    const own = id !== undefined && base !== outer ? [{ base, pointer: '' }] : [];
    const within = [...own, ...place.within].filter((_, i, all) => i === 0 || i === all.length - 1);
    for (const { base, pointer } of [...own, ...place.within]) this.#name(`${base}#${pointer}`, place.target);
    for (const name of [schema.$anchor, schema.$dynamicAnchor, anchor]) {
      if (typeof name === 'string' && name !== '') this.#name(`${within[0]?.base}#${name}`, place.target);
    }
    return { ...place, within };
  }

  #name(uri: string, target: string): void {
    if (!this.#targets.has(uri)) this.#targets.set(uri, target);
  }

  #embedMember(key: string, value: unknown, place: Place, source: JsonObject): unknown {
    if (MAPS.has(key) && isObject(value)) {
      const entries = Object.entries(value);
      return Object.fromEntries(
        entries.map(([name, child]) => [name, this.embed(child, below(place, source, key, name))]),
      );
    }
    if (LISTS.has(key) && Array.isArray(value)) {
      return value.map((child, i) => this.embed(child, below(place, source, key, String(i))));
    }
    return SINGLES.has(key) ? this.embed(value, below(place, source, key)) : value;
  }
}

/**
 * Whether no reader of the document can take a part of the value for a reference: many look for them in examples and
 * constants, too, where they are none.
 */
export function isPlain(value: unknown): boolean {
  return typeof value !== 'object' || !JSON.stringify(value).includes('"$ref":');
}

function holdsSchemas(key: string, value: unknown): boolean {
  if (MAPS.has(key)) return isObject(value);
  return LISTS.has(key) ? Array.isArray(value) : SINGLES.has(key);
}

/** The place of a child: references name it as the source does, which may be in the older draft. */
function below({ within, target, depth }: Place, source: JsonObject, key: string, name?: string): Place {
  const old = oldKey(source, key, name);
  const rest = name === undefined ? '' : `/${escapeToken(name)}`;
  return {
    within: within.map(({ base, pointer }) => ({ base, pointer: `${pointer}/${old}${rest}` })),
    target: `${target}/${fragment(key)}${name === undefined ? '' : `/${fragment(escapeToken(name))}`}`,
    depth: depth + 1,
  };
}

function oldKey(source: JsonObject, key: string, name?: string): string {
  if (Array.isArray(source.items)) {
    if (key === 'prefixItems') return 'items';
    if (key === 'items') return 'additionalItems';
  }
  const { dependencies } = source;
  const moved =
    key === 'dependentSchemas' && isObject(dependencies) && Object.hasOwn(dependencies, name ?? '');
  return moved ? 'dependencies' : key;
}

/** Keywords that mean nothing, or are wrong, in 2020-12. */
function modernize(schema: JsonObject): JsonObject {
  const { items, additionalItems, dependencies, ...rest } = schema;
  const { dependentRequired, dependentSchemas } = rest;
  const dependent = Object.entries(isObject(dependencies) ? dependencies : {});
  const required = dependent.filter(([, value]) => Array.isArray(value));
  const schemas = dependent.filter(([, value]) => !Array.isArray(value));
  const listed = Array.isArray(items);
  return {
    ...rest,
    ...(listed ? { prefixItems: items } : {}),
    ...(listed && additionalItems !== undefined ? { items: additionalItems } : {}),
    ...(!listed && items !== undefined ? { items } : {}),
    ...merge('dependentRequired', dependentRequired, required),
    ...merge('dependentSchemas', dependentSchemas, schemas),
  };
}

function merge(key: string, present: unknown, added: [string, unknown][]): JsonObject {
  if (added.length === 0) return {};
  return { [key]: Object.fromEntries([...Object.entries(isObject(present) ? present : {}), ...added]) };
}

/** An absolute URI whose fragment is decoded; undefined when it is none. */
function canonical(uri: string, base: string): string | undefined {
  try {
    const [resource, ...rest] = new URL(uri, base).href.split('#');
    return `${resource}#${decodeURIComponent(rest.join('#'))}`;
  } catch {
    return undefined;
  }
}

function escapeToken(token: string): string {
  return token.replaceAll('~', '~0').replaceAll('/', '~1');
}

/** As it stands in a URI's fragment (RFC 6901 §6). */
function fragment(token: string): string {
  return encodeURIComponent(token.toWellFormed()).replaceAll('%24', '$');
}

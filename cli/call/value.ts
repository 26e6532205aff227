import { isObject } from '../../mesh/jsonrpc.ts';
import { readJson } from '../../mesh/read-json.ts';
import { suggestion } from '../../mesh/suggestion.ts';
import { UsageError } from '../command.ts';
import { choicesOf, describeTypes, type Schema, typesOf } from './schema.ts';

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const INTEGER = /^-?(0|[1-9]\d*)$/;

/** Not in the types of the language yet. */
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };

/**
 * The value of an argument's text: as it is where a string is allowed, else as JSON of an allowed type. Where nothing
 * is known of it: JSON if it is JSON, else a string. Numbers keep all their digits.
 * @throws UsageError that names the argument, what would do and, of choices, the nearest
 */
export function readValue(name: string, text: string, schema: Schema | undefined, root: Schema): unknown {
  const types = schema && typesOf(schema, root);
  const choices = schema && choicesOf(schema, root);
  if (choices && !choices.includes(text)) {
    const hint = suggestion(text, choices);
    throw new UsageError(`--arg ${name}: "${text}" is not one of ${choices.join(', ')}${hint}`);
  }
  if (!types) {
    const value = NUMBER.test(text) ? rawJSON(text) : readJson(text);
    return value === undefined ? text : value;
  }
  if (types.has('string')) return text;
  for (const type of types) {
    const value = readAs(type, text);
    if (value !== undefined) return value;
  }
  throw new UsageError(`--arg ${name}: "${text}" is no ${describeTypes(types)}${exampleOf(types)}`);
}

/** undefined when the text is no JSON of that type. */
function readAs(type: string, text: string): unknown {
  if (type === 'number') return NUMBER.test(text) ? rawJSON(text) : undefined;
  if (type === 'integer') return INTEGER.test(text) ? rawJSON(text) : undefined;
  if (type === 'boolean') return text === 'true' ? true : text === 'false' ? false : undefined;
  if (type === 'null') return text === 'null' ? null : undefined;
  const value = readJson(text);
  if (type === 'array') return Array.isArray(value) ? value : undefined;
  return isObject(value) ? value : undefined;
}

function exampleOf(types: ReadonlySet<string>): string {
  if (types.has('boolean')) return ': true or false';
  if (types.has('array')) return ', such as ["a","b"]';
  return types.has('object') ? ', such as {"a":1}; a.b=… sets one member' : '';
}

/** Just enough of HCL 2 to write a job file: blocks, attributes, lists, maps, heredocs. */

type Value = string | number | boolean | readonly Value[] | { readonly [key: string]: Value };

export interface Block {
  type: string;
  labels?: readonly string[];
  attributes?: Readonly<Record<string, Value>>;
  blocks?: readonly Block[];
}

const INDENT = '  ';
const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_-]*$/;

/** A block with all that is in it. Strings keep their `${…}`, which is the reader's to fill in. */
export function toHcl({ type, labels = [], attributes = {}, blocks = [] }: Block, depth = 0): string {
  const indent = INDENT.repeat(depth);
  const head = [type, ...labels.map(quote)].join(' ');
  const names = Object.keys(attributes);
  const width = Math.max(0, ...names.map(name => name.length));
  const lines = names.map(
    name => `${indent}${INDENT}${name.padEnd(width)} = ${toValue(attributes[name] ?? '', depth + 1)}\n`,
  );
  const inner = blocks.map(block => toHcl(block, depth + 1));
  const separator = lines.length > 0 && inner.length > 0 ? '\n' : '';
  return `${indent}${head} {\n${lines.join('')}${separator}${inner.join('\n')}${indent}}\n`;
}

function toValue(value: Value, depth: number): string {
  if (typeof value === 'string') return value.includes('\n') ? heredoc(value) : quote(value);
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (isList(value)) return `[${value.map(item => toValue(item, depth)).join(', ')}]`;
  const indent = INDENT.repeat(depth);
  const entries = Object.entries(value).map(
    ([key, item]) =>
      `${indent}${INDENT}${IDENTIFIER.test(key) ? key : quote(key)} = ${toValue(item, depth + 1)}\n`,
  );
  return `{\n${entries.join('')}${indent}}`;
}

function isList(value: object): value is readonly Value[] {
  return Array.isArray(value);
}

function heredoc(text: string): string {
  return `<<EOT\n${text.replace(/\n*$/, '')}\nEOT`;
}

function quote(text: string): string {
  return `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n').replaceAll('%{', '%%{')}"`;
}

import { isDeepStrictEqual } from 'node:util';
import { Document, isMap, isSeq, parseDocument, type YAMLMap, type YAMLSeq } from 'yaml';
import type { JsonObject } from '../../mesh/jsonrpc.ts';
import { checkRegistry } from './registry-file.ts';

/** A service to add, or fields that take the place of those that a service has. */
export interface Change {
  kind: 'add' | 'replace';
  /** Fields in their order; `name` says which service. */
  entry: JsonObject;
  /** Goes before an entry that is added. */
  comment?: string | undefined;
}

/** Fields that say what a service starts: those that the new entry does not have go with the old ones. */
const START_FIELDS = ['command', 'args', 'env', 'cwd'];
const NEW_FILE = '# The MCP servers of this mesh.\nversion: 1\nmcp_services:\n';
const STYLE = { lineWidth: 0, flowCollectionPadding: false } as const;

/**
 * The text of a registry with changes made; `text` undefined: a new one. Every line that is not concerned stays as it is
 * written: YAML's own printer would normalise the whole file. Where a list is written so that nothing can be put in, it
 * is used all the same; it keeps comments and order.
 * @throws RegistryError when the result could not be used
 */
export function mergeRegistry(text: string | undefined, changes: readonly Change[], path: string): string {
  if (changes.length === 0) return text ?? '';
  const added = changes.filter(({ kind }) => kind === 'add');
  let merged = add(text ?? NEW_FILE, added);
  for (const change of changes) if (change.kind === 'replace') merged = replace(merged, change);
  checkRegistry(merged, `${path} (as changed)`);
  return merged;
}

function add(text: string, added: readonly Change[]): string {
  if (added.length === 0) return text;
  const document = parseDocument(text);
  const list = document.get('mcp_services', true);
  const spliced = isSeq(list) ? appendLines(text, document, list, added) : afterKey(text, added);
  const nodes = added.map(({ entry, comment }) => {
    const node = document.createNode(entry);
    flowArguments(node);
    if (comment !== undefined) node.commentBefore = commentText(comment);
    return node;
  });
  if (isSeq(list)) for (const node of nodes) list.add(node);
  else document.set('mcp_services', document.createNode(nodes));
  return sameOrPrinted(text, spliced, document);
}

function replace(text: string, { entry }: Change): string {
  const document = parseDocument(text);
  const list = document.get('mcp_services', true) as YAMLSeq;
  const item = list.items.find((node): node is YAMLMap => isMap(node) && node.get('name') === entry.name);
  if (!item) throw new Error(`"${entry.name}" is written as an alias in the registry; change it by hand`);
  const kept = START_FIELDS.filter(field => entry.command === undefined || field in entry);
  for (const field of START_FIELDS) if (!kept.includes(field)) item.delete(field);
  for (const [field, value] of Object.entries(entry)) {
    if (!isDeepStrictEqual(document.toJS().mcp_services[list.items.indexOf(item)]?.[field], value))
      item.set(field, document.createNode(value));
  }
  flowArguments(item);
  return sameOrPrinted(text, spliceItem(text, list, item), document);
}

/** The spliced text when it says the same as the document, comments included; else the document, printed. */
function sameOrPrinted(text: string, spliced: string | undefined, document: Document): string {
  const printed = document.toString({ ...STYLE });
  const comments = (yaml: string) => yaml.match(/(?:^|\s)#.*/gm)?.length ?? 0;
  if (spliced !== undefined && comments(spliced) >= comments(printed)) {
    const parsed = parseDocument(spliced);
    if (parsed.errors.length === 0 && isDeepStrictEqual(parsed.toJS(), document.toJS())) return spliced;
  }
  return withLineEnds(printed, text);
}

/** Lines of new entries behind the last one of a list in block style. */
function appendLines(
  text: string,
  document: Document,
  list: YAMLSeq,
  added: readonly Change[],
): string | undefined {
  const starts = list.items.map(item => (item as YAMLMap).range?.[0] ?? 0);
  const [first] = starts;
  if (list.flow || first === undefined) return undefined;
  const indent = /^[ ]*(?=- )/.exec(text.slice(text.lastIndexOf('\n', first - 1) + 1))?.[0];
  const end = endOfList(text, document, list);
  if (indent === undefined) return undefined;
  const before = text.slice(0, end);
  const spaced =
    starts.length > 1 && /\n[ \t]*\r?\n(?:[ \t]*#.*\n)*[ \t]*- $/.test(before.slice(0, starts.at(-1)));
  const items = added.map(change => printItem(change, indent)).join(spaced ? '\n' : '');
  const start = before === '' || before.endsWith('\n') ? '' : '\n';
  return `${before}${withLineEnds(`${start}${spaced ? '\n' : ''}${items}`, text)}${text.slice(end)}`;
}

/** `mcp_services:` with nothing behind it, at the end of the text. */
function afterKey(text: string, added: readonly Change[]): string | undefined {
  if (!/(?:^|\n)mcp_services:[ \t]*\r?\n?$/.test(text)) return undefined;
  const items = added.map(change => printItem(change, '  ')).join('');
  return `${text}${withLineEnds(`${text.endsWith('\n') ? '' : '\n'}${items}`, text)}`;
}

/** Where the lines of a list end: before the next key, and before the comments that belong to it. */
function endOfList(text: string, document: Document, list: YAMLSeq): number {
  const pairs = isMap(document.contents) ? document.contents.items : [];
  const next = pairs[pairs.findIndex(({ value }) => value === list) + 1];
  if (!next) return text.length;
  const key = (next.key as { range?: [number, number, number] }).range?.[0] ?? text.length;
  const least = (list.items.at(-1) as YAMLMap).range?.[1] ?? 0;
  let end = key;
  for (;;) {
    const start = text.lastIndexOf('\n', end - 2) + 1;
    if (start < least || end === 0 || !/^[ \t]*(?:#.*)?\r?\n$/.test(text.slice(start, end))) return end;
    end = start;
  }
}

function spliceItem(text: string, list: YAMLSeq, item: YAMLMap): string | undefined {
  const { range } = item;
  if (list.flow || item.flow || !range) return undefined;
  const column = range[0] - (text.lastIndexOf('\n', range[0] - 1) + 1);
  const { commentBefore, spaceBefore } = item;
  // What stands before the entry stays where it is.
  Object.assign(item, { commentBefore: null, spaceBefore: false });
  try {
    const indent = `\n${' '.repeat(column)}`;
    const printed = new Document(item)
      .toString({ ...STYLE })
      .trimEnd()
      .replaceAll(/\n(?=.)/g, indent);
    const old = text.slice(range[0], range[1]);
    const tail = old.slice(old.trimEnd().length);
    return `${text.slice(0, range[0])}${withLineEnds(printed, text)}${tail}${text.slice(range[1])}`;
  } catch {
    // An alias to elsewhere in the file.
    return undefined;
  } finally {
    Object.assign(item, { commentBefore, spaceBefore });
  }
}

function printItem({ entry, comment }: Change, indent: string): string {
  const document = new Document([entry]);
  const item = (document.contents as unknown as YAMLSeq).items[0];
  flowArguments(item);
  const lines = document.toString({ ...STYLE });
  const above =
    comment === undefined
      ? ''
      : commentText(comment)
          .split('\n')
          .map(line => `${indent}#${line}\n`)
          .join('');
  return above + lines.replaceAll(/^(?=.)/gm, indent);
}

/** `args: [-y, some-server]`, as people write it. */
function flowArguments(item: unknown): void {
  const args = isMap(item) ? item.get('args', true) : undefined;
  if (
    isSeq(args) &&
    args.items.every(node => !(node as { commentBefore?: unknown; comment?: unknown }).comment)
  )
    args.flow = true;
}

function commentText(comment: string): string {
  return comment
    .split(/[\r\n\u2028\u2029\u0085]+/)
    .map(line => ` ${line}`)
    .join('\n');
}

function withLineEnds(lines: string, text: string): string {
  return text.includes('\r\n') ? lines.replaceAll(/\r?\n/g, '\r\n') : lines;
}

import { type Edit, type Node, applyEdits as replace } from 'jsonc-parser';
import { BOM, type JsonFile, membersOf, parseClientFile } from './json-file.ts';

/**
 * Changes to one member of a JSON text that leave every other byte as it is. jsonc-parser's own `modify` reformats the
 * lines that it touches, neighbours included, or writes everything on one line; so edits are made here from its tree.
 */
export interface TextEdit {
  /** The text after the change. */
  text: string;
  /** Takes the change back; `undoEdit` applies it. */
  inverse: UndoStep[];
}

/** `written` stands at `offset` of the changed text, where `former` was. */
export interface UndoStep {
  offset: number;
  written: string;
  former: string;
}

interface Style {
  /** One step of indentation; empty: the whole is on one line. */
  unit: string;
  eol: string;
}

/**
 * Sets the member at `path` (keys from the root on), making the objects that lead there.
 * @throws ClientFileError when the text is not JSON, or something on the way is no object
 */
export function setMember(source: string, path: readonly string[], value: unknown, file = 'file'): TextEdit {
  const parsed = parseClientFile(source, file);
  const style = styleOf(parsed.text);
  const { root } = parsed;
  if (!root) {
    const end = parsed.text === '' ? '' : parsed.text.endsWith('\n') ? '' : style.eol;
    const whole = {
      offset: parsed.text.length,
      length: 0,
      content: `${end}${json(nest(path, value), style, 0)}${style.eol}`,
    };
    return apply(source, parsed.text, [whole]);
  }
  const { node, rest } = descend(parsed, root, path);
  const depth = path.length - rest.length;
  const [key, ...inner] = rest;
  const edit =
    key === undefined
      ? { offset: node.offset, length: node.length, content: json(value, style, depth) }
      : insertion(parsed.text, node, { key, value: nest(inner, value) }, style, depth);
  return apply(source, parsed.text, [edit]);
}

/**
 * Takes the member at `path` out, every one if there are several of that name; nothing happens when there is none.
 * @throws ClientFileError when the text is not JSON
 */
export function removeMember(source: string, path: readonly string[], file = 'file'): TextEdit {
  const parsed = parseClientFile(source, file);
  const { root } = parsed;
  if (!root) return { text: source, inverse: [] };
  const { node, rest } = descend(parsed, root, path.slice(0, -1));
  if (rest.length > 0) return { text: source, inverse: [] };
  const key = path.at(-1);
  const all = node.children ?? [];
  const gone = all.filter(({ children }) => children?.[0]?.value === key);
  return apply(source, parsed.text, removals(parsed.text, node, gone));
}

/**
 * Takes a change back, whatever else has changed after it in the text's later part.
 * @throws Error when what was written is not there any more
 */
export function undoEdit(text: string, inverse: readonly UndoStep[]): string {
  for (const { offset, written } of inverse) {
    if (text.slice(offset, offset + written.length) === written) continue;
    throw new Error('the file has been changed since at this place; take the backup, or edit it by hand');
  }
  return replace(
    text,
    inverse.map(({ offset, written, former }) => ({ offset, length: written.length, content: former })),
  );
}

/** Follows the path as far as there are objects. */
function descend(file: JsonFile, root: Node, path: readonly string[]): { node: Node; rest: string[] } {
  let node = root;
  for (const [depth, key] of path.entries()) {
    if (node.type !== 'object') return notAnObject(file, node, path.slice(0, depth));
    const next = membersOf(node).findLast(member => member.key === key);
    if (!next) return { node, rest: path.slice(depth) };
    node = next.value;
  }
  return { node, rest: [] };
}

function notAnObject(file: JsonFile, node: Node, path: readonly string[]): never {
  const what = path.length === 0 ? 'the file' : `"${path.join('.')}"`;
  throw new Error(`${file.place(node.offset)}: ${what} is no object, so nothing can be set in it`);
}

/** Adds a member as the last one of an object, in the way of the one before. */
function insertion(
  text: string,
  node: Node,
  { key, value }: { key: string; value: unknown },
  style: Style,
  depth: number,
): Edit {
  const member = (own: Style) => `${JSON.stringify(key)}: ${json(value, own, depth + 1)}`;
  const last = node.children?.at(-1);
  if (last) {
    const indent = lineIndent(text, last.offset);
    // The neighbours' indentation counts where it is not that of the depth.
    const added =
      indent === undefined
        ? ` ${member({ ...style, unit: '' })}`
        : `${style.eol}${indent}${member(style).replaceAll(newLine(style, depth + 1), `${style.eol}${indent}`)}`;
    return { offset: last.offset + last.length, length: 0, content: `,${added}` };
  }
  const inside = text.slice(node.offset + 1, node.offset + node.length - 1);
  const content = `${newLine(style, depth + 1)}${member(style)}${newLine(style, depth)}`;
  // A comment in an empty object stays where it is.
  const comment = inside.trim() === '' ? 0 : inside.length;
  return { offset: node.offset + 1 + comment, length: inside.length - comment, content };
}

function removals(text: string, object: Node, gone: readonly Node[]): Edit[] {
  const all = object.children ?? [];
  const kept = all.filter(node => !gone.includes(node));
  const edits = gone.map(node => {
    const end = afterComma(text, node.offset + node.length, object);
    return wholeLines(text, node.offset, end);
  });
  const lastKept = kept.at(-1);
  const firstAfter = lastKept && gone.find(node => node.offset > lastKept.offset);
  if (!lastKept || !firstAfter) return edits;
  const lastGone = gone.at(-1);
  const trailing =
    lastGone &&
    afterComma(text, lastGone.offset + lastGone.length, object) > lastGone.offset + lastGone.length;
  // The comma before what was last goes too, unless the list had one at its end anyway.
  if (trailing) return edits;
  const comma = commaAfter(text, lastKept.offset + lastKept.length);
  if (comma === undefined) return edits;
  return [{ offset: comma, length: 1, content: '' }, ...edits].toSorted((a, b) => a.offset - b.offset);
}

/** Widens a cut to its lines where nothing else stands on them. */
function wholeLines(text: string, start: number, end: number): Edit {
  const lineStart = text.lastIndexOf('\n', start - 1) + 1;
  const next = text.indexOf('\n', end);
  const alone =
    text.slice(lineStart, start).trim() === '' && next >= 0 && text.slice(end, next).trim() === '';
  if (alone) return { offset: lineStart, length: next + 1 - lineStart, content: '' };
  const blank = /^[ \t]*/.exec(text.slice(end))?.[0].length ?? 0;
  return { offset: start, length: end + blank - start, content: '' };
}

function afterComma(text: string, end: number, object: Node): number {
  const comma = commaAfter(text, end);
  return comma === undefined || comma > object.offset + object.length ? end : comma + 1;
}

/** Where the comma after a value stands, comments between skipped. */
function commaAfter(text: string, end: number): number | undefined {
  const [skipped = ''] = /^(?:\s|\/\/[^\n]*\n|\/\*[\s\S]*?\*\/)*/.exec(text.slice(end)) ?? [];
  return text[end + skipped.length] === ',' ? end + skipped.length : undefined;
}

function nest(path: readonly string[], value: unknown): unknown {
  return path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
}

function json(value: unknown, style: Style, depth: number): string {
  const text = JSON.stringify(value, null, style.unit);
  return text.replaceAll('\n', newLine(style, depth));
}

function newLine({ unit, eol }: Style, depth: number): string {
  return unit === '' ? '' : `${eol}${unit.repeat(depth)}`;
}

/** The blanks before a place when it is the first on its line. */
function lineIndent(text: string, offset: number): string | undefined {
  const start = text.lastIndexOf('\n', offset - 1) + 1;
  const before = text.slice(start, offset);
  return start > 0 && before.trim() === '' ? before : undefined;
}

function styleOf(text: string): Style {
  const eol = text.includes('\r\n') ? '\r\n' : '\n';
  const [, unit] = /\n([ \t]+)\S/.exec(text) ?? [];
  if (unit !== undefined) return { unit, eol };
  // A text on one line gets its additions there, too.
  return { unit: text.trim().length > 2 ? '' : '  ', eol };
}

function apply(source: string, text: string, edits: Edit[]): TextEdit {
  const shift = source.length - text.length;
  let moved = shift;
  const inverse = edits.map(({ offset, length, content }) => {
    const step = { offset: offset + moved, written: content, former: text.slice(offset, offset + length) };
    moved += content.length - length;
    return step;
  });
  return { text: `${shift > 0 ? BOM : ''}${replace(text, edits)}`, inverse };
}

import { type Node, type ParseError, parseTree, printParseErrorCode } from 'jsonc-parser';

/** A client's configuration file: JSON with what clients let pass, that is comments, trailing commas and a BOM. */
export interface JsonFile {
  path: string;
  /** Without the byte order mark. */
  text: string;
  /** undefined: there is nothing in it. */
  root: Node | undefined;
  /** `file:line:column` of a place in `text`; both count from 1. */
  place(offset: number): string;
}

export interface Member {
  key: string;
  /** Where the key begins. */
  offset: number;
  value: Node;
}

/** The file cannot be used; the message begins with `file:line:column`. */
export class ClientFileError extends Error {
  override name = 'ClientFileError';
}

export const BOM = '\ufeff';

/** By the names of jsonc-parser's error codes. */
const CURES: Readonly<Record<string, string>> = {
  InvalidSymbol: 'not a JSON value; texts and keys stand in double quotes',
  InvalidNumberFormat: 'not a JSON number; put it in double quotes if it is a text',
  PropertyNameExpected: 'a key in double quotes is expected here',
  ValueExpected: 'a value is missing here',
  ColonExpected: 'a ":" is missing between key and value',
  CommaExpected: 'a "," is missing before this',
  CloseBraceExpected: 'a "}" is missing: an object is not closed',
  CloseBracketExpected: 'a "]" is missing: a list is not closed',
  EndOfFileExpected: 'the file should end here: one "}" or "]" too many, or two files in one',
  InvalidCommentToken: 'not a comment; // and /* */ are',
  UnexpectedEndOfComment: 'a comment is not closed by "*/"',
  UnexpectedEndOfString: 'a text is not closed by a double quote on its line',
  UnexpectedEndOfNumber: 'a number ends too early',
  InvalidUnicode: '"\\u" wants four hexadecimal digits',
  InvalidEscapeCharacter: 'not an escape; a backslash, as in Windows paths, is written "\\\\"',
  InvalidCharacter: 'a control character in a text; write it as \\n, \\t or \\u00XX',
};

/** @throws ClientFileError that names the first broken place and what would be right there */
export function parseClientFile(source: string, path: string): JsonFile {
  const text = source.startsWith(BOM) ? source.slice(BOM.length) : source;
  const place = (offset: number) => `${path}:${lineAndColumn(text, offset)}`;
  const errors: ParseError[] = [];
  const root = parse(text, errors, place);
  const [first] = errors;
  if (first) {
    const toml = /^\s*\[(mcp_servers|[\w.-]+)/m.test(text) && !/^\s*[[{]\s*["{]/.test(text);
    const hint = toml ? '; this looks like TOML (Codex), which is not read: write its servers as JSON' : '';
    throw new ClientFileError(
      `${place(first.offset)}: ${CURES[printParseErrorCode(first.error)] ?? 'not JSON'}${hint}`,
    );
  }
  return { path, text, root, place };
}

/** Members of an object in their order, those of equal names included; of anything else none. */
export function membersOf(node: Node | undefined): Member[] {
  if (node?.type !== 'object') return [];
  return (node.children ?? []).flatMap(({ children: [key, value] = [] }) =>
    key && value ? [{ key: String(key.value), offset: key.offset, value }] : [],
  );
}

/** The member that programs see: of several with that name, the last one. */
export function memberOf(node: Node | undefined, key: string): Member | undefined {
  return membersOf(node).findLast(member => member.key === key);
}

/** What a value is, in words for messages that must not show it. */
export function kindOf(node: Node): string {
  const kinds: Record<string, string> = { array: 'a list', object: 'an object', string: 'a text' };
  return kinds[node.type] ?? (node.type === 'null' ? 'null' : `a ${node.type}`);
}

function parse(text: string, errors: ParseError[], place: (offset: number) => string): Node | undefined {
  const options = { allowTrailingComma: true, allowEmptyContent: true };
  try {
    return parseTree(text, errors, options);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new ClientFileError(`${place(0)}: nested too deeply to be a configuration`, { cause });
  }
}

function lineAndColumn(text: string, offset: number): string {
  const before = text.slice(0, offset).split(/\r\n|\n|\r/);
  return `${before.length}:${(before.at(-1)?.length ?? 0) + 1}`;
}

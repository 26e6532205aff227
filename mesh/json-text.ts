/**
 * Edits inside JSON text. Messages are forwarded as they were written (key order, unknown members, integers
 * beyond 2^53), so an id is replaced in the text and never by parsing and printing again.
 *
 * Every function here expects text that `JSON.parse` has accepted: it looks for structure, not for errors.
 */

/** Where one member of an object stands: its value is `text.slice(start, end)`, its key begins at `keyStart`. */
export interface Member {
  key: string;
  keyStart: number;
  start: number;
  end: number;
}

export interface Edit {
  start: number;
  end: number;
  json: string;
}

/** Ends of a line for some readers, beside those of JSON. */
const OTHER_LINE_ENDS = ['\u0085', '\u2028', '\u2029'];
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Members of the object whose `{` is the first non-blank character at or after `at`, in their order. */
export function membersOf(text: string, at = 0): Member[] {
  const members: Member[] = [];
  let i = skipBlank(text, skipBlank(text, at) + 1);
  while (text[i] !== '}') {
    const keyEnd = endOfString(text, i);
    const key = readKey(text.slice(i + 1, keyEnd - 1));
    const colon = skipBlank(text, keyEnd);
    const start = skipBlank(text, colon + 1);
    const end = endOfValue(text, start);
    members.push({ key, keyStart: i, start, end });
    i = skipBlank(text, end);
    if (text[i] === ',') i = skipBlank(text, i + 1);
  }
  return members;
}

/** Of equal keys the last one counts, as for `JSON.parse`. */
export function lastOf<T extends Pick<Member, 'key'>>(members: readonly T[], key: string): T | undefined {
  return members.findLast(member => member.key === key);
}

/** The member at a path of keys, or undefined. */
export function memberAt(text: string, path: readonly string[]): Member | undefined {
  let at = 0;
  let found: Member | undefined;
  for (const key of path) {
    if (text[skipBlank(text, at)] !== '{') return undefined;
    found = lastOf(membersOf(text, at), key);
    if (!found) return undefined;
    at = found.start;
  }
  return found;
}

/** The text with each edit's span replaced; spans must not overlap. */
export function applyEdits(text: string, edits: Edit[]): string {
  let result = '';
  let from = 0;
  for (const edit of edits.toSorted((a, b) => a.start - b.start)) {
    result += text.slice(from, edit.start) + edit.json;
    from = edit.end;
  }
  return result + text.slice(from);
}

/** Spans of the elements of the array whose `[` stands at `at`. */
export function elementsOf(text: string, at: number): { start: number; end: number }[] {
  const elements: { start: number; end: number }[] = [];
  let i = skipBlank(text, at + 1);
  while (text[i] !== ']') {
    const end = endOfValue(text, i);
    elements.push({ start: i, end });
    i = skipBlank(text, end);
    if (text[i] === ',') i = skipBlank(text, i + 1);
  }
  return elements;
}

interface ObjectChange {
  /** JSON text by key; a key that is already there is replaced. */
  set?: Readonly<Record<string, string>>;
  remove?: (key: string) => boolean;
}

/**
 * The text with members of the object at `path` set and removed; the other members stay as they were written. An
 * object that is not there is made when there is something to set.
 */
export function changeObject(text: string, path: readonly string[], change: ObjectChange): string {
  const span = path.length === 0 ? { start: skipBlank(text, 0), end: text.length } : memberAt(text, path);
  if (span && text[span.start] === '{') {
    return text.slice(0, span.start) + changeMembers(text, span.start, change) + text.slice(span.end);
  }
  const added = Object.entries(change.set ?? {});
  const key = path.at(-1);
  if (added.length === 0 || key === undefined) return text;
  return changeObject(text, path.slice(0, -1), { set: { [key]: objectText(added) } });
}

function changeMembers(text: string, at: number, { set = {}, remove = () => false }: ObjectChange): string {
  const kept = membersOf(text, at).filter(({ key }) => !remove(key) && !Object.hasOwn(set, key));
  const parts = kept.map(({ keyStart, end }) => text.slice(keyStart, end));
  for (const [key, json] of Object.entries(set)) parts.push(`${JSON.stringify(key)}:${json}`);
  return `{${parts.join(',')}}`;
}

/** An object's JSON text from the JSON texts of its members' values. */
export function objectText(members: Iterable<readonly [key: string, json: string]>): string {
  return `{${[...members].map(([key, json]) => `${JSON.stringify(key)}:${json}`).join(',')}}`;
}

/** The text on one line: a raw line break in valid JSON is only ever white space between tokens. */
export function onOneLine(text: string): string {
  return text.includes('\n') || text.includes('\r') ? text.replace(/[\r\n]+/g, ' ') : text;
}

/**
 * The text without what ends a line for some readers (Node's readline, Python's splitlines) and not for JSON, where it
 * only stands inside strings, and an escape is the same.
 */
export function forLineReaders(text: string): string {
  // Each as a search of its own: of a long text that takes a thirtieth of what a character class does.
  if (!OTHER_LINE_ENDS.some(end => text.includes(end))) return text;
  return text.replace(/[\u0085\u2028\u2029]/g, escapeUnit);
}

/** The same JSON in ASCII: what is not stands inside strings, where an escape is the same. */
export function inAscii(text: string): string {
  return text.replace(/[^\0-\x7f]/g, escapeUnit);
}

function escapeUnit(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** What a key says that stands like this between its quotes. */
export function readKey(text: string): string {
  return text.includes('\\') ? (JSON.parse(`"${text}"`) as string) : text;
}

function skipBlank(text: string, at: number): number {
  let i = at;
  for (;;) {
    const code = text.charCodeAt(i);
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return i;
    i += 1;
  }
}

/** Index behind the closing quote of the string whose opening quote stands at `at`. */
function endOfString(text: string, at: number): number {
  let i = at;
  for (;;) {
    i = text.indexOf('"', i + 1);
    let backslashes = 0;
    while (text.charCodeAt(i - 1 - backslashes) === BACKSLASH) backslashes += 1;
    if (backslashes % 2 === 0) return i + 1;
  }
}

function endOfValue(text: string, at: number): number {
  const first = text.charCodeAt(at);
  if (first === QUOTE) return endOfString(text, at);
  if (first === 0x7b || first === 0x5b) return endOfContainer(text, at);
  let i = at + 1;
  while (i < text.length && !isDelimiter(text.charCodeAt(i))) i += 1;
  return i;
}

function endOfContainer(text: string, at: number): number {
  let depth = 0;
  let i = at;
  for (;;) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) {
      i = endOfString(text, i);
      continue;
    }
    if (code === 0x7b || code === 0x5b) depth += 1;
    else if (code === 0x7d || code === 0x5d) {
      depth -= 1;
      if (depth === 0) return i + 1;
    }
    i += 1;
  }
}

function isDelimiter(code: number): boolean {
  return code === 0x2c || code === 0x7d || code === 0x5d || code <= 0x20;
}

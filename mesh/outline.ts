import { type ByteMember, skim } from './json-bytes.ts';
import { lastOf, type Member, membersOf } from './json-text.ts';
import { parseJson } from './read-json.ts';
import type { LongText, WireText } from './wire-text.ts';

/** What is read of a message before it is known what it is. */
export interface Outline {
  text: WireText;
  /**
   * Parsed. Of a long text, `params.arguments` is parsed when it is asked for, each time, and the result of a response
   * is known by its `isError` alone.
   */
  value: unknown;
  members(): readonly Member[];
  /** Of one that `members` names, or of one below it: `params`, its `_meta`, or `result`. */
  membersIn(member: Member): readonly Member[];
}

const DESCEND = new Set(['params', '_meta', 'result']);

/** @throws MeshError `parse_error` */
export function outlineOf(text: WireText): Outline {
  return (typeof text === 'string' ? undefined : outlineOfLong(text)) ?? outlineOfString(text.toString());
}

function outlineOfString(text: string): Outline {
  let members: Member[] | undefined;
  return {
    text,
    value: parseJson(text),
    members() {
      members ??= membersOf(text);
      return members;
    },
    membersIn: ({ start }) => membersOf(text, start),
  };
}

/** undefined where it may be no JSON object: then the ordinary way says what it is. */
function outlineOfLong(text: LongText): Outline | undefined {
  const members = skim(text.bytes, DESCEND);
  if (!members) return undefined;
  const params = lastOf(members, 'params');
  const given = lastOf(params?.members ?? [], 'arguments');
  const result = lastOf(members, 'method') ? undefined : lastOf(members, 'result');
  const edits = [
    ...(given ? [{ start: given.start, end: given.end, json: 'null' }] : []),
    ...(result ? [{ start: result.start, end: result.end, json: digestOf(result, text) }] : []),
  ];
  const value = JSON.parse(text.edit(edits).toString());
  if (given) {
    const get = () => JSON.parse(text.slice(given.start, given.end));
    Object.defineProperty(value.params, 'arguments', { get, enumerable: true, configurable: true });
  }
  return { text, value, members: () => members, membersIn: (member: ByteMember) => member.members ?? [] };
}

function digestOf(result: ByteMember, text: LongText): string {
  const isError = lastOf(result.members ?? [], 'isError');
  if (isError) return `{"isError":${text.slice(isError.start, isError.end)}}`;
  return result.members ? '{}' : 'null';
}

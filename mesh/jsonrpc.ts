import { MeshError, toRpcError } from './errors.ts';
import {
  applyEdits,
  changeObject,
  type Edit,
  elementsOf,
  lastOf,
  type Member,
  memberAt,
  membersOf,
} from './json-text.ts';
import { type Outline, outlineOf } from './outline.ts';
import { parseJson } from './read-json.ts';
import { editText, joinLines, type WireText } from './wire-text.ts';

export type JsonObject = Record<string, unknown>;

interface Envelope<Text> {
  /** The message as it was received, on one line. */
  text: Text;
  value: JsonObject;
}

export interface RpcRequest extends Envelope<WireText> {
  kind: 'request';
  method: string;
  params: JsonObject;
  /** The id as JSON text, so that `1`, `1.0` and `"1"` stay what they were. */
  idText: string;
  /** Members of a text that this request had, for as long as it is this one: finding them means reading all of it. */
  spans?: { text: WireText; members: readonly Member[] };
}

export interface RpcNotification extends Envelope<string> {
  kind: 'notification';
  method: string;
  params: JsonObject;
}

export interface RpcResponse extends Envelope<WireText> {
  kind: 'response';
  /** null when the answering side could not tell which request it was (JSON-RPC 2.0 §5). */
  id: string | number | null;
  /** undefined when it is no object, as both results and errors of MCP are. */
  answer: AnswerKind | undefined;
}

/** What a server made of a request: a result, a tool's own error (`isError`), or a JSON-RPC error. */
export type AnswerKind = 'ok' | 'tool_error' | 'server_error';

export type RpcMessage = RpcRequest | RpcNotification | RpcResponse;

const ENVELOPE = '{"jsonrpc":"2.0","id":';
const ID_FIRST = /^\{"jsonrpc":"2\.0","id":\d{1,15}(?=[,}])/;
const ID_LAST = /,"jsonrpc":"2\.0","id":\d{1,15}\}$/;
const ENVELOPE_LENGTH = 64;

/**
 * Reads one JSON-RPC 2.0 message.
 * @throws MeshError `parse_error` when it is not JSON, `invalid_request` when it is no message, or when a member
 * stands twice: two parsers may then read two different messages, and policy must see what the server sees.
 */
export function readMessage(source: WireText): RpcMessage {
  const outline = outlineOf(joinLines(source));
  const message = classify(outline);
  refuseDuplicates(message, outline);
  return message;
}

/**
 * Reads an HTTP body: one message, or the messages of a batch (2025-03-26).
 * @throws MeshError as `readMessage`; `invalid_request` for an empty batch or one of more than `batchMax`
 */
export function readBody(source: WireText, batchMax: number): RpcMessage | RpcMessage[] {
  if (!isArray(source)) return readMessage(source);
  const text = joinLines(source).toString();
  parseJson(text);
  const elements = elementsOf(text, text.indexOf('['));
  if (elements.length === 0) throw invalid('a batch must not be empty');
  if (elements.length > batchMax) throw invalid(`a batch has at most ${batchMax} messages (limits.batch)`);
  return elements.map(({ start, end }) => readMessage(text.slice(start, end)));
}

/** As `readMessage`, for lines of the child, which is trusted with its own members: duplicates are not looked for. */
export function readChildMessage(line: WireText): RpcMessage {
  // A carriage return is white space in JSON and the end of a line in an event stream.
  const text = joinLines(line);
  return classify(outlineOf(text));
}

/** A request's text under another id and, where it asks for progress, another progress token. */
export function rewriteRequest(request: RpcRequest, id: number): WireText {
  const { text, spans } = request;
  const members = spans?.text === text ? spans.members : membersOf(text.toString());
  const edits = [editOf(members, 'id', String(id))];
  if (progressTokenOf(request) !== undefined) {
    edits.push(editAt(text, ['params', '_meta', 'progressToken'], String(id)));
  }
  return editText(text, edits);
}

/**
 * A response's text under another id. Most servers write the id first or, with the official SDK, last: there it is found
 * without reading the rest. A JSON string holds no bare quote, so at the very start or end such members are the message's.
 */
export function withId({ text }: RpcResponse, idText: string): WireText {
  const head = ID_FIRST.exec(text.slice(0, ENVELOPE_LENGTH));
  if (head) return editText(text, [{ start: 0, end: head[0].length, json: ENVELOPE + idText }]);
  const tail = ID_LAST.exec(text.slice(-ENVELOPE_LENGTH));
  if (!tail) return editText(text, [editAt(text, ['id'], idText)]);
  const end = text.length;
  return editText(text, [{ start: end - tail[0].length, end, json: `,${ENVELOPE.slice(1)}${idText}}` }]);
}

/** A message's text with the value at `path` replaced by other JSON text. */
export function rewriteAt(text: string, path: readonly string[], json: string): string {
  return applyEdits(text, [editAt(text, path, json)]);
}

/** JSON text of the request's progress token, or undefined when it asks for no progress (MCP basic/utilities/progress). */
export function progressTokenOf(request: RpcRequest): string | undefined {
  const meta = request.params._meta;
  if (!isObject(meta) || meta.progressToken === undefined) return undefined;
  return textAt(request.text, ['params', '_meta', 'progressToken']);
}

/** The request with members of the object at a path of its text set and removed (see `changeObject`). */
export function changeRequest(
  request: RpcRequest,
  path: readonly string[],
  change: Parameters<typeof changeObject>[2],
): RpcRequest {
  return { ...request, text: changeObject(request.text.toString(), path, change) };
}

/** JSON text of the value at a path; undefined where there is none. */
export function textAt(text: WireText, path: readonly string[]): string | undefined {
  const member = memberAt(text.toString(), path);
  return member && text.slice(member.start, member.end);
}

export function resultText(idText: string, resultJson: string): string {
  return `{"jsonrpc":"2.0","id":${idText},"result":${resultJson}}`;
}

/** An error response. `idText` is `null` when the request's id is not known. */
export function errorText(idText: string, error: MeshError, callId?: string): string {
  return `{"jsonrpc":"2.0","id":${idText},"error":${JSON.stringify(toRpcError(error, callId))}}`;
}

export function requestText(id: number, method: string, params: unknown): string {
  return JSON.stringify({ jsonrpc: '2.0', id, method, params });
}

export function notificationText(method: string, params?: unknown): string {
  return JSON.stringify({ jsonrpc: '2.0', method, ...(params === undefined ? {} : { params }) });
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isArray(source: WireText): boolean {
  const head = source.slice(0, ENVELOPE_LENGTH);
  return /^\s*\[/.test(head.trim() === '' ? source.toString() : head);
}

function classify(outline: Outline): RpcMessage {
  const { text, value } = outline;
  if (!isObject(value) || value.jsonrpc !== '2.0') throw invalid('not a JSON-RPC 2.0 message object');
  const { method, id, params } = value;
  if (method === undefined) return classifyResponse(outline, value);
  if (typeof method !== 'string') throw invalid('"method" must be a string');
  if (params !== undefined && !isObject(params)) throw invalid('"params" must be an object');
  const common = { value, method, params: params ?? {} };
  if (id === undefined) return { kind: 'notification', text: text.toString(), ...common };
  if (!isId(id)) throw invalid('"id" must be a string or a number');
  const spans = { text, members: outline.members() };
  const { start, end } = memberOf(spans.members, 'id');
  return { kind: 'request', text, ...common, idText: text.slice(start, end), spans };
}

function classifyResponse(outline: Outline, value: JsonObject): RpcResponse {
  const { text } = outline;
  const { id, result, error } = value;
  if ((result === undefined) === (error === undefined)) throw invalid('neither a request nor a response');
  if (id !== null && id !== undefined && !isId(id)) throw invalid('"id" must be a string or a number');
  const response = { kind: 'response', text, id: id ?? null, answer: answerOf(result, error) } as const;
  if (typeof text === 'string') return { ...response, value };
  return {
    ...response,
    get value() {
      return parseJson(text.toString()) as JsonObject;
    },
  };
}

function answerOf(result: unknown, error: unknown): AnswerKind | undefined {
  if (!isObject(error ?? result)) return undefined;
  if (error !== undefined) return 'server_error';
  return isObject(result) && result.isError === true ? 'tool_error' : 'ok';
}

function isId(id: unknown): id is string | number {
  return typeof id === 'string' || typeof id === 'number';
}

function refuseDuplicates(message: RpcMessage, { members, membersIn }: Outline): void {
  const top = members();
  const duplicate = duplicateKey(top);
  if (duplicate !== undefined) throw invalid(`member "${duplicate}" stands twice`);
  const params = top.find(member => member.key === 'params');
  if (!params || !isObject(message.value.params)) return;
  const inParams = membersIn(params);
  const meta = inParams.find(member => member.key === '_meta');
  const inMeta = meta && isObject(message.value.params._meta) ? membersIn(meta) : [];
  const nested = duplicateKey(inParams) ?? duplicateKey(inMeta);
  if (nested !== undefined) throw invalid(`member "${nested}" stands twice in "params"`);
}

function duplicateKey(members: readonly { key: string }[]): string | undefined {
  if (members.length < 2) return undefined;
  const seen = new Set<string>();
  return members.find(({ key }) => seen.size === seen.add(key).size)?.key;
}

function editAt(text: WireText, path: readonly string[], json: string): Edit {
  const member = memberAt(text.toString(), path);
  if (!member) throw new MeshError('internal', { detail: `no member ${path.join('.')} to replace` });
  return { start: member.start, end: member.end, json };
}

function editOf(members: readonly Member[], key: string, json: string): Edit {
  const { start, end } = memberOf(members, key);
  return { start, end, json };
}

function memberOf(members: readonly Member[], key: string): Member {
  const member = lastOf(members, key);
  if (!member) throw new MeshError('internal', { detail: `no member ${key}` });
  return member;
}

function invalid(detail: string): MeshError {
  return new MeshError('invalid_request', { detail });
}

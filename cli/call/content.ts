import { stripVTControlCharacters } from 'node:util';
import { isObject } from '../../mesh/jsonrpc.ts';

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const UNSAFE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/**
 * A result for people: the text of a tool's answer as it is, a word for what is no text; any other result as JSON.
 * Ends with a line end, unless there is nothing.
 */
export function describeResult(result: unknown): string {
  if (!isObject(result) || !Array.isArray(result.content)) return `${JSON.stringify(result, null, 2)}\n`;
  const parts = result.content.filter(isObject).map(describeContent);
  if (parts.length === 0 && result.structuredContent !== undefined)
    return `${JSON.stringify(result.structuredContent, null, 2)}\n`;
  return parts.map(part => (part.endsWith('\n') ? part : `${part}\n`)).join('');
}

/** In a terminal a server's text must not move the cursor or colour what follows; its lines and tabs stay. */
export function forTerminal(text: string): string {
  return stripVTControlCharacters(text).replaceAll('\r\n', '\n').replace(UNSAFE, '?');
}

function describeContent(content: Record<string, unknown>): string {
  const { type, text, data, mimeType, resource, uri, name } = content;
  if (type === 'text') return String(text);
  if (type === 'resource_link') return `[${word(name) || 'resource'}: ${word(uri)}]`;
  if (type === 'resource' && isObject(resource)) {
    if (typeof resource.text === 'string') return resource.text;
    return `[${word(resource.mimeType) || 'resource'}: ${word(resource.uri)}]`;
  }
  const bytes = typeof data === 'string' ? `, ${Buffer.byteLength(data, 'base64')} bytes` : '';
  return `[${word(type)} ${word(mimeType)}${bytes}; --json has it]`;
}

function word(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

import { createHash } from 'node:crypto';
import { MeshError } from '../../mesh/errors.ts';
import { isObject, type JsonObject, textAt } from '../../mesh/jsonrpc.ts';

/** All pages of a tool list. */
export interface ToolList {
  /** Equal for equal lists. */
  hash: string;
  parse(): JsonObject[];
}

const PAGES_MAX = 100;
/** Characters of JSON of all pages together. */
const TEXT_MAX = 16 * 1024 * 1024;

/**
 * Reads a tool list to its end; `ask` resolves with the result's text for the params of one `tools/list`.
 * @throws MeshError `server_error` when there is no end to it, and as `ask`
 */
export async function readToolList(ask: (paramsText: string) => Promise<string>): Promise<ToolList> {
  const pages: string[] = [];
  const hash = createHash('sha256');
  let cursor: string | undefined;
  let read = 0;
  while (pages.length < PAGES_MAX) {
    const text = await ask(cursor === undefined ? '{}' : `{"cursor":${cursor}}`);
    read += text.length;
    if (read > TEXT_MAX) throw endless(`more than ${TEXT_MAX} characters`);
    pages.push(text);
    hash.update(text).update('\n');
    cursor = textAt(text, ['nextCursor']);
    if (cursor === undefined || cursor === 'null') {
      return { hash: hash.digest('base64'), parse: () => pages.flatMap(toolsOf) };
    }
  }
  throw endless(`more than ${PAGES_MAX} pages`);
}

function toolsOf(page: string): JsonObject[] {
  const result: unknown = JSON.parse(page);
  return isObject(result) && Array.isArray(result.tools) ? result.tools.filter(isObject) : [];
}

function endless(size: string): MeshError {
  return new MeshError('server_error', { detail: `the list of tools has ${size}`, delivered: 'yes' });
}

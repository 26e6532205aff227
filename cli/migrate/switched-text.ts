import { getNodeValue } from 'jsonc-parser';
import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import type { ClientFormat, ServerPlace } from '../clients/client-format.ts';
import { setMember } from '../clients/json-edit.ts';
import { BOM, memberOf, parseClientFile } from '../clients/json-file.ts';
import { KEY_INPUT } from '../clients/vscode.ts';

/** The text of a client's file with the mesh's entry in the place of the old one, every other byte as it was. */
export function switchedText(text: string, format: ClientFormat, at: ServerPlace, entry: JsonObject): string {
  const switched = format.setServer(text, at, entry).text;
  const asks = format.id === 'vscode' && JSON.stringify(entry).includes(`\${input:${KEY_INPUT.id}}`);
  return asks ? withKeyInput(switched, at.within ?? []) : switched;
}

/** The value of a whole file. @throws ClientFileError when it is broken */
export function documentOf(text: string): unknown {
  const { root } = parseClientFile(text, 'file');
  return root && getNodeValue(root);
}

/** An entry as it stands in a text: its value, and where. */
export interface EntrySpan {
  value: unknown;
  start: number;
  end: number;
}

/** undefined: there is none. @throws ClientFileError when the file is broken */
export function findEntry(text: string, path: readonly string[]): EntrySpan | undefined {
  const { root } = parseClientFile(text, 'file');
  let node = root;
  for (const key of path) node = memberOf(node, key)?.value;
  if (!node) return undefined;
  const start = node.offset + (text.startsWith(BOM) ? BOM.length : 0);
  return { value: getNodeValue(node), start, end: start + node.length };
}

/** VS Code asks its user for the key, where the file says so once. */
function withKeyInput(text: string, within: readonly string[]): string {
  const found = findEntry(text, [...within, 'inputs'])?.value;
  const inputs = Array.isArray(found) ? found : [];
  if (inputs.some(input => isObject(input) && input.id === KEY_INPUT.id)) return text;
  return setMember(text, [...within, 'inputs'], [...inputs, KEY_INPUT]).text;
}

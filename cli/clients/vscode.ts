import { suggestion } from '../../mesh/yaml-faults.ts';
import type { Variable } from './client-format.ts';
import {
  bridgeEntry,
  createJsonClient,
  editorVariable,
  isAt,
  keyHeader,
  toVariableName,
} from './json-client.ts';
import { type JsonFile, memberOf, membersOf } from './json-file.ts';

/** What VS Code asks its user for, once. */
export const KEY_INPUT = {
  type: 'promptString',
  id: 'mesh-api-key',
  description: 'API key of the mesh',
  password: true,
} as const;

/** VS Code: `servers`, and `inputs` that it asks the user for (`${input:id}`). */
export const vscode = createJsonClient({
  id: 'vscode',
  title: 'VS Code',
  where: '.vscode/mcp.json in the project, or the command "MCP: Open User Configuration"',
  key: 'servers',
  rules: { envFile: true },
  detect: file => isAt(file, /^mcp\.json$/, /\.vscode\//) || hasShape(file),
  variable: vscodeVariable,
  notes: unknownInputs,
  // Once its servers stood in settings.json, among everything else.
  foreign: file => memberOf(file.root, 'mcp') !== undefined,
  more: (file, read) => read(memberOf(memberOf(file.root, 'mcp')?.value, 'servers'), ['mcp']),
  meshEntry({ url, bridge, key }) {
    const reference = `\${input:${KEY_INPUT.id}}`;
    if (bridge) return { type: 'stdio', ...bridgeEntry(bridge, key ? reference : undefined) };
    return { type: 'http', url, ...keyHeader(key, reference) };
  },
  printBeside(key): Record<string, unknown> {
    return key ? { inputs: [KEY_INPUT] } : {};
  },
});

function hasShape({ root }: JsonFile): boolean {
  const servers = memberOf(root, 'servers') ?? memberOf(memberOf(root, 'mcp')?.value, 'servers');
  return servers !== undefined && memberOf(root, 'mcpServers') === undefined;
}

function vscodeVariable(body: string): Variable | undefined {
  const [, kind, id = ''] = /^(input|config|command):(.+)$/.exec(body) ?? [];
  if (kind === undefined) return editorVariable(body);
  const asked = 'VS Code asks its user for it: here it is a variable of the workers';
  const known = 'only VS Code knows it: here it is a variable of the workers';
  return { kind: 'env', name: toVariableName(id), note: kind === 'input' ? asked : known };
}

/** `${input:id}` of which there is no input. */
function unknownInputs(file: JsonFile): string[] {
  const holder = memberOf(file.root, 'mcp')?.value ?? file.root;
  const inputs = memberOf(holder, 'inputs')?.value.children ?? [];
  const ids = inputs.flatMap(input => String(memberOf(input, 'id')?.value.value ?? ''));
  const servers = memberOf(holder, 'servers')?.value;
  const used = membersOf(servers).flatMap(({ value }) => {
    const text = file.text.slice(value.offset, value.offset + value.length);
    return [...text.matchAll(/\$\{input:([^}"]+)\}/g)].map(match => ({
      id: match[1] ?? '',
      at: value.offset + match.index,
    }));
  });
  return used
    .filter(({ id }) => !ids.includes(id))
    .map(({ id, at }) => `${file.place(at)}: there is no input "${id}"${suggestion(id, ids)}`);
}

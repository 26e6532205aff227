import { KEY_VARIABLE, type Variable } from './client-format.ts';
import { bridgeEntry, createJsonClient, isAt, keyHeader, type ReadServers } from './json-client.ts';
import { type JsonFile, memberOf, membersOf } from './json-file.ts';

/** Folders that Claude Code sets for its servers. */
const OWN_FOLDERS = ['CLAUDE_PROJECT_DIR', 'CLAUDE_PLUGIN_ROOT', 'CLAUDE_PLUGIN_DATA'];

/** Claude Code: `.mcp.json` of a project, and `~/.claude.json`, which holds the user's servers and those of projects. */
export const claudeCode = createJsonClient({
  id: 'claude-code',
  title: 'Claude Code',
  where: '.mcp.json in the project',
  key: 'mcpServers',
  rules: { timeoutUnitMs: 1, urlNeedsType: true },
  detect: file => isAt(file, /^\.?mcp\.json$/, /^(?!.*\.(vscode|cursor)\/)/) || isUserFile(file),
  variable: claudeVariable,
  foreign: isUserFile,
  more: readProjects,
  meshEntry({ url, bridge, key }) {
    const reference = `\${${KEY_VARIABLE}}`;
    if (bridge) return { type: 'stdio', ...bridgeEntry(bridge, key ? reference : undefined) };
    return { type: 'http', url, ...keyHeader(key, reference) };
  },
});

/** `${VAR}` and `${VAR:-default}`; nothing else is filled in. */
function claudeVariable(body: string): Variable | undefined {
  const [, name, fallback] = /^([A-Za-z_]\w*)(?::-(.*))?$/s.exec(body) ?? [];
  if (name === undefined) return undefined;
  const note = 'a folder that only Claude Code knows: set it to one on the host of the workers';
  return { kind: 'env', name, fallback, ...(OWN_FOLDERS.includes(name) ? { note } : {}) };
}

function isUserFile(file: JsonFile): boolean {
  return isAt(file, /^\.?claude\.json$/) || memberOf(file.root, 'projects')?.value.type === 'object';
}

function readProjects(file: JsonFile, read: ReadServers) {
  return membersOf(memberOf(file.root, 'projects')?.value).flatMap(({ key: project, value }) => {
    const off = memberOf(value, 'disabledMcpServers')?.value.children ?? [];
    const servers = read(memberOf(value, 'mcpServers'), ['projects', project]);
    for (const server of servers) if (off.some(node => node.value === server.name)) server.disabled = true;
    return servers;
  });
}

import { KEY_VARIABLE } from './client-format.ts';
import { bridgeEntry, createJsonClient, editorVariable, isAt, keyHeader } from './json-client.ts';

/** Cursor: `${env:NAME}`, `${workspaceFolder}`, `${userHome}`, and `envFile` for stdio servers. */
export const cursor = createJsonClient({
  id: 'cursor',
  title: 'Cursor',
  where: '.cursor/mcp.json in the project, or ~/.cursor/mcp.json',
  key: 'mcpServers',
  rules: { envFile: true },
  detect: file => isAt(file, /^mcp\.json$/, /\.cursor\//),
  variable: editorVariable,
  meshEntry({ url, bridge, key }) {
    const reference = `\${env:${KEY_VARIABLE}}`;
    if (bridge) return { type: 'stdio', ...bridgeEntry(bridge, key ? reference : undefined) };
    return { url, ...keyHeader(key, reference) };
  },
});

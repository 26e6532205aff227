import { KEY_VARIABLE } from './client-format.ts';
import { bridgeEntry, createJsonClient, editorVariable, isAt, keyHeader } from './json-client.ts';

const SECOND_MS = 1000;

/** Cline: as Claude Desktop's, with `disabled`, `autoApprove`, `timeout` in seconds and URLs. */
export const cline = createJsonClient({
  id: 'cline',
  title: 'Cline',
  where: 'cline_mcp_settings.json (MCP Servers → Configure)',
  key: 'mcpServers',
  rules: { timeoutUnitMs: SECOND_MS },
  detect: file => isAt(file, /^cline_mcp_settings\.json$/),
  variable: editorVariable,
  meshEntry({ url, bridge, key }) {
    const reference = `\${env:${KEY_VARIABLE}}`;
    if (bridge) return bridgeEntry(bridge, key ? reference : undefined);
    return { type: 'streamableHttp', url, ...keyHeader(key, reference) };
  },
});

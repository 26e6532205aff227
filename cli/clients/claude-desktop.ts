import { bridgeEntry, createJsonClient, isAt } from './json-client.ts';

/** Claude Desktop: stdio servers only, no variables: what looks like one reaches the server as it is. */
export const claudeDesktop = createJsonClient({
  id: 'claude',
  title: 'Claude Desktop',
  where: 'claude_desktop_config.json (Settings → Developer → Edit Config)',
  key: 'mcpServers',
  rules: {},
  // It connects to URLs by its own settings only, not by this file.
  speaksHttp: false,
  beside: ['globalShortcut', 'preferences', 'isUsingBuiltInNodeForMcp'],
  detect: file => isAt(file, /^claude_desktop_config\b.*\.json$/),
  variable: () => undefined,
  meshEntry({ url, bridge }) {
    if (!bridge) throw new Error(`Claude Desktop's file knows no URLs (${url}): use --stdio`);
    return bridgeEntry(bridge);
  },
});

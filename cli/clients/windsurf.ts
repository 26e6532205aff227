import { KEY_VARIABLE, type Variable } from './client-format.ts';
import {
  bridgeEntry,
  createJsonClient,
  editorVariable,
  isAt,
  keyHeader,
  toVariableName,
} from './json-client.ts';

/** Windsurf: as Cursor's, with `serverUrl` for URLs and `${file:path}`. */
export const windsurf = createJsonClient({
  id: 'windsurf',
  title: 'Windsurf',
  where: '~/.codeium/windsurf/mcp_config.json',
  key: 'mcpServers',
  rules: {},
  detect: file => isAt(file, /^mcp_config\.json$/),
  variable: windsurfVariable,
  meshEntry({ url, bridge, key }) {
    const reference = `\${env:${KEY_VARIABLE}}`;
    if (bridge) return bridgeEntry(bridge, key ? reference : undefined);
    return { serverUrl: url, ...keyHeader(key, reference) };
  },
});

function windsurfVariable(body: string): Variable | undefined {
  const [, path] = /^file:(.+)$/.exec(body) ?? [];
  if (path === undefined) return editorVariable(body);
  const name = toVariableName(path.split(/[\\/]/).at(-1) ?? path);
  return { kind: 'env', name, note: 'the content of a file of yours: here it is a variable of the workers' };
}

import type { JsonObject } from '../../mesh/jsonrpc.ts';
import { type ClientFormat, KEY_VARIABLE } from './client-format.ts';

/** Codex: TOML, which is printed here and not read. */
export const codex: ClientFormat = {
  id: 'codex',
  title: 'Codex',
  where: '~/.codex/config.toml, or .codex/config.toml in a trusted project',
  speaksHttp: true,
  detect: () => false,
  read: notRead,
  variable: () => undefined,
  pathOf: notRead,
  setServer: notRead,
  removeServer: notRead,
  meshEntry({ url, bridge, key }) {
    if (bridge)
      return { command: bridge.command, args: bridge.args, ...(key ? { env_vars: [KEY_VARIABLE] } : {}) };
    return { url, ...(key ? { bearer_token_env_var: KEY_VARIABLE } : {}) };
  },
  print(entries) {
    return [...entries]
      .map(([name, entry]) => `[mcp_servers.${tomlKey(name)}]\n${tomlFields(entry)}`)
      .join('\n');
  },
};

function notRead(): never {
  throw new Error("Codex's config.toml is printed by `mesh export` and not read: write its servers as JSON");
}

/** TOML 1.0: bare keys are letters, digits, "_" and "-". */
function tomlKey(name: string): string {
  return /^[A-Za-z0-9_-]+$/.test(name) ? name : tomlText(name);
}

function tomlFields(entry: JsonObject): string {
  const value = (field: unknown) =>
    Array.isArray(field) ? `[${field.map(tomlText).join(', ')}]` : tomlText(field);
  return Object.entries(entry)
    .map(([key, field]) => `${key} = ${value(field)}\n`)
    .join('');
}

/** A basic string of TOML has the escapes of JSON, and DEL escaped, too. */
function tomlText(text: unknown): string {
  return JSON.stringify(String(text)).replaceAll('\u007f', '\\u007F');
}

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Gateway, type GatewayOptions, startGateway } from '../kong/dev/gateway.ts';
import { buildPlugin } from '../kong-plugin/build.ts';

const ROOT = join(import.meta.dirname, '..');
/** Access policy: what is tested with it is not who may call. */
const EVERYBODY = {
  version: 1,
  anonymous: 'everybody',
  roles: { everybody: { allow: [{ service: '*' }] } },
};

/**
 * Builds the plugin as it is installed, into a folder inside of another one, and resolves with its path. It is not the
 * checkout's: other tests build theirs at the same time, and Kong wants nothing else in it.
 */
export async function installPlugin(folder: string): Promise<string> {
  const plugins = join(folder, 'plugins');
  mkdirSync(plugins);
  await buildPlugin(join(plugins, 'mcp-mesh.cjs'));
  return plugins;
}

/** The gateway stand-in with our configuration, and the real plugin in its server; `env` is the plugin's. */
export function startPluginGateway(
  plugins: string,
  env: Record<string, string>,
  options: Omit<GatewayOptions, 'configPath' | 'pluginServer'> = {},
): Promise<Gateway> {
  const server = join(ROOT, 'kong-plugin/server.cjs');
  return startGateway({
    ...options,
    configPath: join(ROOT, 'kong/kong.yml'),
    pluginServer: { command: [process.execPath, server, '--plugins-directory', plugins], env },
  });
}

/** Writes an access policy by which anybody may call everything; returns its path. */
export function writeOpenPolicy(folder: string, allowedNetworks: readonly string[] = []): string {
  const path = join(folder, 'access.yaml');
  // JSON is YAML.
  writeFileSync(path, JSON.stringify({ ...EVERYBODY, allowed_networks: allowedNetworks }));
  return path;
}

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startGateway } from '../../../kong/dev/gateway.ts';
import { buildPlugin } from '../../../kong-plugin/build.ts';
import { deriveServiceKey } from '../../../mesh/keys.ts';
import { ROOT } from '../../e2e/mesh-process.ts';
import type { TestFleet } from './helpers.ts';

export interface GatewayKeys {
  root: Buffer;
  identity: string;
  identityPublic: string;
}

const CONFIG = join(ROOT, 'kong/kong.yml');
const PLUGIN_SERVER = join(ROOT, 'kong-plugin/server.cjs');
/** Access policy: what is tested here is not who may call. */
const EVERYBODY = {
  version: 1,
  anonymous: 'everybody',
  roles: { everybody: { allow: [{ service: '*' }] } },
};
/** How long the gateway keeps idle connections; its workers wait a little longer before they go. */
const IDLE_MS = 300;
const DRAIN_MARGIN_MS = 300;

export function makeKeys(): GatewayKeys {
  const { d, x } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  return { root: randomBytes(32), identity: String(d), identityPublic: String(x) };
}

/** What a worker needs to be believed by that gateway, and to drain with it. */
export function workerKeys({ root, identityPublic }: GatewayKeys, service: string): Record<string, string> {
  return {
    MESH_SERVICE_KEYS: deriveServiceKey(root, service).toString('base64url'),
    MESH_IDENTITY_PUBLIC_KEYS: identityPublic,
    MESH_DRAIN_IDLE_MS: String(IDLE_MS + DRAIN_MARGIN_MS),
  };
}

/** The gateway stand-in with the real plugin in front of a fleet; its base URL. */
export async function startTestGateway(mesh: TestFleet, keys: GatewayKeys): Promise<string> {
  const plugins = join(mesh.folder, 'plugins');
  mkdirSync(plugins);
  await buildPlugin(join(plugins, 'mcp-mesh.cjs'));
  const policy = join(mesh.folder, 'access.yaml');
  writeFileSync(policy, JSON.stringify(EVERYBODY));
  const gateway = await startGateway({
    configPath: CONFIG,
    upstreamIdleMs: IDLE_MS,
    pluginServer: {
      command: [process.execPath, PLUGIN_SERVER, '--plugins-directory', plugins],
      env: {
        CONSUL_HTTP_ADDR: mesh.consulUrl,
        MESH_ACCESS_POLICY: policy,
        MESH_ROOT_KEYS: keys.root.toString('base64url'),
        MESH_IDENTITY_PRIVATE_KEY: keys.identity,
      },
    },
    log: () => {},
  });
  mesh.cleanUp(() => gateway.close());
  return gateway.url;
}

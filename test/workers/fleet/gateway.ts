import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { deriveServiceKey } from '../../../mesh/keys.ts';
import { installPlugin, startPluginGateway, writeOpenPolicy } from '../../plugin-gateway.ts';
import type { TestFleet } from './helpers.ts';

export interface GatewayKeys {
  root: Buffer;
  identity: string;
  identityPublic: string;
}

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
  const env = {
    CONSUL_HTTP_ADDR: mesh.consulUrl,
    MESH_ACCESS_POLICY: writeOpenPolicy(mesh.folder),
    MESH_ROOT_KEYS: keys.root.toString('base64url'),
    MESH_IDENTITY_PRIVATE_KEY: keys.identity,
  };
  const plugins = await installPlugin(mesh.folder);
  const gateway = await startPluginGateway(plugins, env, { upstreamIdleMs: IDLE_MS, log: () => {} });
  mesh.cleanUp(() => gateway.close());
  return gateway.url;
}

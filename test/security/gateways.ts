import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { Gateway } from '../../kong/dev/gateway.ts';
import { type After, closedPort } from '../kong/gateway-helpers.ts';
import { installPlugin, startPluginGateway } from '../plugin-gateway.ts';
import type { MeshKeys } from './keys.ts';

interface GatewaysOptions {
  consulUrl: string;
  keys: MeshKeys;
  /** Fields of the access policy. */
  policy: object;
  count?: number;
  /** Further settings. */
  env?: Record<string, string>;
}

export interface TestGateways {
  gateways: [Gateway, ...Gateway[]];
  url: string;
  policyPath: string;
  /** What they and their plugin servers said. */
  lines: string[];
  /** The value of a metric of the first one; 0 before it is counted. */
  metric(name: string): Promise<number>;
}

let plugins: Promise<string> | undefined;

/** Gateways on one policy, each with the real plugin in its server, as they are installed. */
export async function startGateways(
  after: After,
  { consulUrl, keys, policy, count = 1, env = {} }: GatewaysOptions,
): Promise<TestGateways> {
  const folder = mkdtempSync(join(tmpdir(), 'security-'));
  after(() => rmSync(folder, { recursive: true }));
  const policyPath = join(folder, 'access.yaml');
  writeFileSync(policyPath, stringify({ version: 1, ...policy }));
  plugins ??= build();
  const directory = await plugins;
  const metricsPort = await closedPort();
  const lines: string[] = [];
  const start = async (_: unknown, number: number) => {
    const settings = {
      CONSUL_HTTP_ADDR: consulUrl,
      MESH_ACCESS_POLICY: policyPath,
      MESH_ROOT_KEYS: keys.root.toString('base64url'),
      MESH_IDENTITY_PRIVATE_KEY: keys.identityPrivate,
      ...(number === 0 ? { MESH_GATEWAY_METRICS_PORT: String(metricsPort) } : {}),
      ...env,
    };
    const gateway = await startPluginGateway(directory, settings, {
      log: (level, message) => lines.push(`${level} ${message}`),
    });
    after(() => gateway.close());
    return gateway;
  };
  const [first, ...others] = await Promise.all(Array.from({ length: count }, start));
  if (!first) throw new Error('no gateway');
  return {
    gateways: [first, ...others],
    url: first.url,
    policyPath,
    lines,
    async metric(name) {
      const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
      const values = text.matchAll(new RegExp(`^mcp_mesh_${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'));
      return [...values].reduce((sum, [, value]) => sum + Number(value), 0);
    },
  };
}

/** Once for all tests of a file. */
async function build(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'security-plugin-'));
  process.once('exit', () => rmSync(folder, { recursive: true }));
  return installPlugin(folder);
}

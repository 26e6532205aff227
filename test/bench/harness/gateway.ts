import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { startConsul } from '../../../kong/dev/consul.ts';
import { parsePrivateKey, publicKeyOf } from '../../../mesh/identity.ts';
import { deriveServiceKey } from '../../../mesh/keys.ts';
import { MCP_PATH } from '../../../mesh/names.ts';
import { installPlugin, writeOpenPolicy } from '../../plugin-gateway.ts';
import { openCallers, type Target } from './target.ts';
import { SERVICE, startWorker } from './worker.ts';

export interface BenchGateway extends Target {
  pluginServer: number;
  /** Has the plugin, and what is preloaded into its server writes there. */
  folder: string;
  /** Settings of the plugin: who wants to do in this process what it does. */
  env: Record<string, string>;
  /** PDK round trips of each of the last phases. */
  pdkCalls(): Promise<{ access: number[]; log: number[] }>;
}

const PROGRAM = join(import.meta.dirname, 'gateway-process.ts');
const READY_POLL_MS = 50;

/**
 * A worker in Consul's stand-in, behind Kong's stand-in with the real plugin in the real plugin server; callers are
 * anonymous, calls carry an identity that the worker checks. `preload`: a module for the plugin server.
 */
export async function startGateway(program: string, preload?: string): Promise<BenchGateway> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-gateway-'));
  const consul = await startConsul();
  const root = randomBytes(32);
  const identity = randomBytes(32).toString('base64url');
  const worker = await startWorker({
    program,
    env: {
      CONSUL_HTTP_ADDR: consul.url,
      MESH_SERVICE_KEYS: deriveServiceKey(root, SERVICE).toString('base64url'),
      MESH_IDENTITY_PUBLIC_KEYS: publicKeyOf(parsePrivateKey(identity)),
    },
  });
  const env = {
    CONSUL_HTTP_ADDR: consul.url,
    MESH_ACCESS_POLICY: writeOpenPolicy(folder),
    MESH_ROOT_KEYS: root.toString('base64url'),
    MESH_IDENTITY_PRIVATE_KEY: identity,
    ...(preload === undefined ? {} : { NODE_OPTIONS: `--import=${preload}`, BENCH_FOLDER: folder }),
  };
  const child = fork(PROGRAM, [await installPlugin(folder), JSON.stringify(env)]);
  const [{ url: base, pluginServer }] = await once(child, 'message');
  const url = new URL(`${base}${MCP_PATH}/${SERVICE}/mcp`);
  await untilRouted(url);
  return {
    name: 'gateway + worker',
    pluginServer,
    folder,
    env,
    pids: () => ({ ...worker.pids(), 'plugin server': pluginServer, 'stand-in': child.pid ?? 0 }),
    open: shape => openCallers(url, shape),
    async pdkCalls() {
      const answered = once(child, 'message');
      child.send('pdk-calls');
      return (await answered)[0];
    },
    async stop() {
      const ended = once(child, 'exit');
      child.disconnect();
      await ended;
      await worker.stop();
      await consul.close();
      rmSync(folder, { recursive: true });
    },
  };
}

/** Until the worker is known, and has proven what it is. */
async function untilRouted(url: URL): Promise<void> {
  for (;;) {
    try {
      const [caller] = await openCallers(url, { callers: 1, bytes: 100 });
      caller?.close();
      return;
    } catch {
      await pause(READY_POLL_MS);
    }
  }
}

import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { startConsul } from '../kong/dev/consul.ts';
import { startGateway } from '../kong/dev/gateway.ts';
import { buildPlugin } from '../kong-plugin/build.ts';
import { parsePrivateKey, publicKeyOf } from '../mesh/identity.ts';
import { deriveServiceKey } from '../mesh/keys.ts';
import { loadRegistry, type Registry } from '../mesh/registry.ts';
import { registryEnvironment, type StartSettings, startSettings, workerSettings } from '../mesh/settings.ts';
import { buildWorker } from '../workers/fleet/bundle.ts';
import { startFleet } from '../workers/fleet/fleet.ts';
import { controlPathOf } from './control.ts';
import { answer } from './output.ts';
import { awaitServices, printSummary } from './summary.ts';

/** `npm start`: the whole mesh on one machine, with stand-ins for Kong and, unless one is given, Consul. */

type Stop = () => Promise<void>;

const CONFIG = fileURLToPath(new URL('../kong/kong.yml', import.meta.url));
const PLUGIN_SERVER = fileURLToPath(new URL('../kong-plugin/server.cjs', import.meta.url));
const PLUGINS = fileURLToPath(new URL('../dist/plugin', import.meta.url));

const STOP_DEADLINE_MS = 20_000;

/** What has been started, newest first: it is stopped in that order. */
const started: Stop[] = [];
let stopping = false;

if (import.meta.main) {
  await startMesh().catch((error: Error) => {
    process.stderr.write(`mcp-mesh: ${error.message}\n`);
    process.exitCode = 1;
  });
}

/**
 * Starts all; it then runs until a signal. With `json`, what there is to call is printed as one JSON document.
 * @throws Error when it could not be started; what had been is stopped again
 */
export async function startMesh(changes: Partial<StartSettings> = {}, json = false): Promise<void> {
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    const settings = { ...startSettings(), ...changes };
    if (workerSettings().tls)
      throw new Error(
        'MESH_TLS_CERT is for workers and gateways of their own: unset it here, where all is on loopback',
      );
    const registry = loadRegistry(settings.registryPath, { env: registryEnvironment() });
    await start(settings, registry, json);
  } catch (error) {
    await stopAll();
    throw error;
  }
}

async function start(settings: StartSettings, registry: Registry, json: boolean): Promise<void> {
  await buildPlugin();
  const program = await buildWorker();
  const consulUrl = settings.consul?.url ?? (await startConsulStandIn());
  const environment = {
    ...settings.environment,
    CONSUL_HTTP_ADDR: consulUrl,
    MESH_REGISTRY: settings.registryPath,
  };
  // Gateways first: what they send to has to outlast them.
  const keys = ephemeralKeys();
  const fleet = await startFleet({
    registryPath: settings.registryPath,
    env: registryEnvironment(),
    program,
    controlPath: controlPathOf(settings),
    consul: { ...settings.consul, url: consulUrl },
    logLevel: settings.logLevel,
    environment: service => ({
      MESH_LOG_LEVEL: settings.logLevel,
      MESH_ADVERTISE_ADDRESS: '127.0.0.1',
      MESH_SERVICE_KEYS: deriveServiceKey(keys.root, service.name).toString('base64url'),
      MESH_IDENTITY_PUBLIC_KEYS: keys.identityPublic,
      ...environment,
    }),
  });
  // The gateway, which is stopped first, is the only one that sends: nobody has to be waited for.
  started.unshift(() => fleet.stop({ idleMs: 0, killMs: STOP_DEADLINE_MS }));
  const gateway = await startGateway({
    configPath: CONFIG,
    port: settings.port,
    pluginServer: {
      command: [process.execPath, PLUGIN_SERVER, '--plugins-directory', PLUGINS],
      env: definedOf({
        MESH_ACCESS_POLICY: settings.policyPath,
        // Beside the gateway's own: `mesh why` and Prometheus ask there.
        MESH_GATEWAY_METRICS_PORT: settings.port === 0 ? undefined : String(settings.port + 1),
        MESH_ROOT_KEYS: keys.root.toString('base64url'),
        MESH_IDENTITY_PRIVATE_KEY: keys.identity,
        ...environment,
      }),
    },
  });
  started.unshift(gateway.close);
  const services = await awaitServices(gateway.url, registry);
  if (stopping) return;
  if (json) answer(true, { gateway: gateway.url, consul: consulUrl, services }, '');
  else printSummary(gateway.url, consulUrl, services);
}

/** Good for this run: a mesh of several machines is given its own (`mesh keys init`). */
function ephemeralKeys(): { root: Buffer; identity: string; identityPublic: string } {
  const identity = randomBytes(32).toString('base64url');
  return { root: randomBytes(32), identity, identityPublic: publicKeyOf(parsePrivateKey(identity)) };
}

async function startConsulStandIn(): Promise<string> {
  const consul = await startConsul();
  started.unshift(consul.close);
  return consul.url;
}

function stop(): void {
  if (stopping) process.exit(1);
  stopping = true;
  process.stderr.write('\nstopping …\n');
  stopAll().then(
    () => process.exit(0),
    error => {
      process.stderr.write(`mcp-mesh: did not stop cleanly: ${(error as Error).message}\n`);
      process.exit(1);
    },
  );
}

async function stopAll(): Promise<void> {
  for (const close of started.splice(0)) await close();
}

function definedOf(environment: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { startConsul } from '../kong/dev/consul.ts';
import { startGateway } from '../kong/dev/gateway.ts';
import { buildPlugin } from '../kong-plugin/build.ts';
import { deriveServiceKey } from '../mesh/keys.ts';
import { loadRegistry, type Registry } from '../mesh/registry.ts';
import { registryEnvironment, type StartSettings, startSettings } from '../mesh/settings.ts';
import { startFleet } from '../workers/fleet/fleet.ts';
import { awaitServices, printSummary } from './summary.ts';

/** `npm start`: the whole mesh on one machine, with stand-ins for Kong and, unless one is given, Consul. */

type Stop = () => Promise<void>;

const CONFIG = fileURLToPath(new URL('../kong/kong.yml', import.meta.url));
const PLUGIN_SERVER = fileURLToPath(new URL('../kong-plugin/server.cjs', import.meta.url));
const PLUGINS = fileURLToPath(new URL('../dist/plugin', import.meta.url));

/** What has been started, newest first: it is stopped in that order. */
const started: Stop[] = [];
let stopping = false;

process.on('SIGINT', stop);
process.on('SIGTERM', stop);
try {
  const settings = startSettings();
  const registry = loadRegistry(settings.registryPath, { env: registryEnvironment() });
  await start(settings, registry);
} catch (error) {
  process.stderr.write(`mcp-mesh: ${(error as Error).message}\n`);
  process.exitCode = 1;
  await stopAll();
}

async function start(settings: StartSettings, registry: Registry): Promise<void> {
  await buildPlugin();
  const consulUrl = settings.consul?.url ?? (await startConsulStandIn());
  const environment = {
    ...settings.environment,
    CONSUL_HTTP_ADDR: consulUrl,
    MESH_REGISTRY: settings.registryPath,
  };
  // Gateways first: what they send to has to outlast them.
  const rootKey = randomBytes(32);
  const fleet = startFleet({
    services: registry.services,
    environment: service => ({
      MESH_DRAIN_IDLE_MS: '0',
      MESH_LOG_LEVEL: settings.logLevel,
      MESH_ADVERTISE_ADDRESS: '127.0.0.1',
      MESH_SERVICE_KEYS: deriveServiceKey(rootKey, service.name).toString('base64url'),
      ...environment,
    }),
    onExit: (service, pid, how) =>
      process.stderr.write(`mcp-mesh: worker ${pid} of ${service} ${how}; it is started again\n`),
  });
  started.unshift(fleet.stop);
  const gateway = await startGateway({
    configPath: CONFIG,
    port: settings.port,
    pluginServer: {
      command: [process.execPath, PLUGIN_SERVER, '--plugins-directory', PLUGINS],
      env: definedOf(environment),
    },
  });
  started.unshift(gateway.close);
  const services = await awaitServices(gateway.url, registry);
  if (!stopping) printSummary(gateway.url, consulUrl, services);
}

async function startConsulStandIn(): Promise<string> {
  const consul = await startConsul();
  started.unshift(consul.close);
  return consul.url;
}

function stop(): void {
  if (stopping) process.exit(1);
  stopping = true;
  process.stdout.write('\nstopping …\n');
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

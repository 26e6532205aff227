import { EXIT, parseOptions, UsageError } from './command.ts';
import { startMesh } from './start.ts';

const USAGE = `Usage: mesh up [--port <port>] [--registry <file>]

Starts the mesh on this machine, as \`npm start\` does: a supervisor with the workers of all services of the registry, a
gateway, and a Consul of its own unless CONSUL_HTTP_ADDR names one. Runs until Ctrl-C; a second Ctrl-C does not wait
for calls. Changes of the registry file take effect within seconds.

Options:
  --port PORT      the gateway's port (default: $MESH_PORT or 10010)
  --registry FILE  default: $MESH_REGISTRY or config/mcp-mesh-registry.yaml

Exit codes: 0 stopped, 1 could not be started, 2 wrong usage.
`;

const OPTIONS = { port: { type: 'string' }, registry: { type: 'string' } } as const;
const PORT_MAX = 65_535;

/** `mesh up`. Returns when all has been started; the process then lives until a signal. @throws UsageError */
export async function upCommand(argv: string[]): Promise<number> {
  const { port, registry, help } = parseOptions(argv, OPTIONS).values as {
    port?: string;
    registry?: string;
    help?: boolean;
  };
  if (help) {
    process.stdout.write(USAGE);
    return EXIT.ok;
  }
  return startMesh({
    ...(port === undefined ? {} : { port: readPort(port) }),
    ...(registry === undefined ? {} : { registryPath: registry }),
  });
}

function readPort(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > PORT_MAX) throw new UsageError(`--port: "${text}" is not a port`);
  return port;
}

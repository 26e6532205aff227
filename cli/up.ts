import { type CommonOptions, EXIT, type MeshCommand, UsageError } from './command.ts';

const ABOUT = `Starts the mesh on this machine, as \`npm start\` does: a supervisor with the workers of all services
of the registry, a gateway, and a Consul of its own unless CONSUL_HTTP_ADDR names one. Runs until Ctrl-C; a second
Ctrl-C does not wait for calls. Changes of the registry file take effect within seconds.`;
const PORT_MAX = 65_535;

interface Options extends CommonOptions {
  port?: number;
  registry?: string;
}

/** `mesh up`: its exit code stands when all has been started; the process then lives until a signal. */
export function upCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .option('--port <port>', "the gateway's port (default: $MESH_PORT or 10010)", readPort)
    .registryOption()
    .note(
      'Exit codes: 0 stopped, 1 could not be started, 2 wrong usage. --json prints the services when they are ready.',
    )
    .run(async ({ port, registry, json }: Options) => {
      const { startMesh } = await import('./start.ts');
      const changes = {
        ...(port === undefined ? {} : { port }),
        ...(registry === undefined ? {} : { registryPath: registry }),
      };
      await startMesh(changes, json);
      return EXIT.ok;
    });
}

function readPort(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > PORT_MAX) throw new UsageError(`--port: "${text}" is not a port`);
  return port;
}

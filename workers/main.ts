import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { type Logger, pino } from 'pino';
import { adHocService, findService, loadRegistry, type Service } from '../mesh/registry.ts';
import { registryEnvironment, type WorkerSettings, workerSettings } from '../mesh/settings.ts';
import { startWorker, type Worker } from './worker.ts';

const USAGE = `usage: node workers/main.ts <service> [--port P]
       node workers/main.ts [--port P] [--name NAME] [--isolation shared|session|principal] --no-register -- <command> [argument …]

Hosts one MCP stdio server behind HTTP. <service> is a name in the registry file (MESH_REGISTRY).`;

const OPTIONS = {
  port: { type: 'string' },
  name: { type: 'string' },
  isolation: { type: 'string', default: 'shared' },
  register: { type: 'boolean', default: true },
} as const;

interface Arguments {
  service: Service;
  port: number | undefined;
  register: boolean;
}

try {
  const settings = workerSettings();
  const { service, port, register } = readArguments(process.argv.slice(2), settings);
  const log = pino(
    { level: settings.logLevel, base: { service: service.name, pid: process.pid } },
    pino.destination({ fd: process.stderr.fd, sync: true }),
  );
  stopOnSignal(
    await startWorker({ service, settings, log, register, ...(port === undefined ? {} : { port }) }),
    log,
  );
} catch (error) {
  process.stderr.write(`mcp-mesh worker: ${(error as Error).message}\n`);
  process.exitCode = 1;
}

function readArguments(argv: string[], settings: WorkerSettings): Arguments {
  const { values, positionals, tokens } = parseArgs({
    args: argv,
    allowPositionals: true,
    allowNegative: true,
    tokens: true,
    options: OPTIONS,
  });
  const port = values.port === undefined ? undefined : readPort(values.port);
  const terminator = tokens.find(token => token.kind === 'option-terminator');
  const [first, ...rest] = positionals;
  if (first === undefined || (!terminator && rest.length > 0)) throw new Error(USAGE);
  if (terminator) {
    const isolation = values.isolation as Service['isolation'];
    const service = adHocService({
      name: values.name ?? serviceNameOf(first),
      command: first,
      args: rest,
      isolation,
    });
    return { service, port, register: values.register };
  }
  const registry = loadRegistry(settings.registryPath, { env: registryEnvironment(), only: first });
  return { service: findService(registry, first), port, register: values.register };
}

function readPort(text: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error(`--port: "${text}" is not a port`);
  return port;
}

function serviceNameOf(command: string): string {
  const name = basename(command)
    .toLowerCase()
    .replaceAll(/[^a-z0-9_-]/g, '-');
  return name.replace(/^[-_]+/, '') || 'server';
}

/** The first signal drains and stops; a second one does not wait. */
function stopOnSignal(worker: Worker, log: Logger): void {
  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (stopping) process.exit(1);
    stopping = true;
    log.info({ signal }, 'worker is stopping');
    worker.stop().then(
      () => process.exit(0),
      error => {
        log.error({ err: error }, 'worker did not stop cleanly');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  // A supervisor that is gone without a word (kill -9) closes the channel: nothing of its fleet may stay behind.
  process.on('disconnect', () => stop('SIGTERM'));
}

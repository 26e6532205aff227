import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import type { Logger } from 'pino';
import { adHocService, findService, loadRegistry, type Service } from '../mesh/registry.ts';
import { registryEnvironment, type WorkerSettings, workerSettings } from '../mesh/settings.ts';
import { meetSupervisor, type Supervisor } from './fleet/supervised.ts';
import { createLog, switchLevelBySignal } from './log.ts';
import { startWorker, type Worker } from './worker.ts';

const USAGE = `usage: npm run worker -- [<service>] [--port P]
       npm run worker -- [--port P] [--name NAME] [--isolation shared|session|principal] --no-register -- <command> [argument …]

Hosts one MCP stdio server behind HTTP. <service> is a name in the registry file (MESH_REGISTRY), or, with
--supervised, what the fleet that started it says. WORKER_SERVICE and WORKER_PORT say what the command line does not.`;

const OPTIONS = {
  port: { type: 'string' },
  name: { type: 'string' },
  isolation: { type: 'string', default: 'shared' },
  register: { type: 'boolean', default: true },
  supervised: { type: 'boolean', default: false },
} as const;

interface Arguments {
  /** Reads the registry, when it has to. */
  service(): Service;
  port: number | undefined;
  register: boolean;
  supervised: boolean;
}

type Stop = (idleMs?: number) => void;

/** Whoever started us and holds the other end is to know, and its end is ours. */
const hasChannel = process.connected;
let supervisor: Supervisor | undefined;
try {
  const settings = workerSettings();
  const given = readArguments(process.argv.slice(2), settings);
  if (given.supervised) supervisor = meetSupervisor();
  const { service, port } = supervisor
    ? await supervisor.start
    : { service: given.service(), port: given.port };
  const log = createLog({ level: settings.logLevel, base: { service: service.name, pid: process.pid } });
  switchLevelBySignal(log);
  supervisor?.govern(log);
  const worker = await startWorker({
    service,
    settings,
    log,
    register: given.register,
    ...(port === undefined ? {} : { port }),
    ...(supervisor ? { onState: supervisor.onState } : {}),
  });
  const stop = stopOnSignal(worker, log);
  supervisor?.attend(worker, stop);
} catch (error) {
  const { message } = error as Error;
  process.stderr.write(`mcp-mesh worker: ${message}\n`);
  process.exitCode = 1;
  supervisor?.fail(message, () => process.exit());
}

function readArguments(argv: string[], settings: WorkerSettings): Arguments {
  const { values, positionals, tokens } = parseArgs({
    args: argv,
    allowPositionals: true,
    allowNegative: true,
    tokens: true,
    options: OPTIONS,
  });
  const port = values.port === undefined ? settings.port : readPort(values.port);
  const terminator = tokens.find(token => token.kind === 'option-terminator');
  const [first = terminator ? undefined : settings.service, ...rest] = positionals;
  const { register, supervised } = values;
  if (first === undefined || (!terminator && rest.length > 0)) throw new Error(USAGE);
  if (terminator) {
    const isolation = values.isolation as Service['isolation'];
    const name = values.name ?? serviceNameOf(first);
    const service = () => adHocService({ name, command: first, args: rest, isolation });
    return { service, port, register, supervised };
  }
  const service = () => {
    const registry = loadRegistry(settings.registryPath, { env: registryEnvironment(), only: first });
    return findService(registry, first);
  };
  return { service, port, register, supervised };
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
function stopOnSignal(worker: Worker, log: Logger): Stop {
  let stopping = false;
  const stop: Stop = idleMs => {
    if (stopping) return;
    stopping = true;
    worker.stop(idleMs).then(
      () => process.exit(0),
      error => {
        log.error({ err: error }, 'worker did not stop cleanly');
        process.exit(1);
      },
    );
  };
  const onSignal = (signal: NodeJS.Signals) => {
    if (stopping) process.exit(1);
    log.info({ signal }, 'worker is stopping');
    stop();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  // A supervisor that is gone without a word (kill -9) closes the channel: nothing of its fleet may stay behind.
  process.on('disconnect', () => stop());
  if (hasChannel && !process.connected) stop();
  return stop;
}

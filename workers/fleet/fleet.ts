import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { instanceCount, type Service } from '../../mesh/registry.ts';

export interface Fleet {
  /** Ends every worker; resolves when all have ended. */
  stop(): Promise<void>;
}

interface FleetOptions {
  services: readonly Service[];
  /** Environment of a service's workers. */
  environment(service: Service): Record<string, string | undefined>;
  onExit(service: string, pid: number | undefined, how: string): void;
}

const WORKER = fileURLToPath(new URL('../main.ts', import.meta.url));
const RESTART_FIRST_MS = 500;
const RESTART_MAX_MS = 30_000;
const SUSTAINED_UPTIME_MS = 60_000;
const STOP_DEADLINE_MS = 20_000;

/** One worker process for each instance of each service, started again with backoff when it ends. */
export function startFleet({ services, environment, onExit }: FleetOptions): Fleet {
  const running = new Set<ChildProcess>();
  const stopping = new AbortController();

  const keepAlive = async (service: Service) => {
    let failures = 0;
    while (!stopping.signal.aborted) {
      const startedAt = Date.now();
      const worker = startWorkerProcess(service, environment(service));
      running.add(worker);
      const how = await ended(worker);
      running.delete(worker);
      if (stopping.signal.aborted) return;
      onExit(service.name, worker.pid, how);
      failures = Date.now() - startedAt >= SUSTAINED_UPTIME_MS ? 0 : failures + 1;
      const wait = Math.min(RESTART_MAX_MS, RESTART_FIRST_MS * 2 ** (failures - 1));
      await delay(wait, undefined, { signal: stopping.signal }).catch(() => {});
    }
  };
  const lives = services.flatMap(service =>
    Array.from({ length: instanceCount(service) }, () => keepAlive(service)),
  );

  return {
    async stop() {
      stopping.abort();
      for (const worker of running) worker.kill('SIGTERM');
      const late = setTimeout(() => {
        for (const worker of running) worker.kill('SIGKILL');
      }, STOP_DEADLINE_MS);
      await Promise.all(lives);
      clearTimeout(late);
    },
  };
}

/**
 * In a group of its own, so that Ctrl-C reaches a worker once and by way of us; the IPC channel tells it when we are
 * gone without a word.
 */
function startWorkerProcess(service: Service, env: Record<string, string | undefined>): ChildProcess {
  return spawn(process.execPath, [WORKER, service.name], {
    detached: true,
    env,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
}

async function ended(worker: ChildProcess): Promise<string> {
  try {
    const [code, signal] = (await once(worker, 'exit')) as [number | null, NodeJS.Signals | null];
    return signal ? `was ended by ${signal}` : `exits with ${code}`;
  } catch (error) {
    return `cannot be started: ${(error as Error).message}`;
  }
}

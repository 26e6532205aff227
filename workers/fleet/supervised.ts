import type { Logger } from 'pino';
import { setLogLevel } from '../log.ts';
import { isLogLevel } from '../log-level.ts';
import type { ServerState } from '../stdio-server.ts';
import type { Worker } from '../worker.ts';
import { isOrder, type Order, type Report, sendTo } from './messages.ts';

/** The worker's end of its supervisor's IPC channel. */
export interface Supervisor {
  /** The service to host, and the port to do it at (0: any). */
  readonly start: Promise<Extract<Order, { type: 'start' }>>;
  onState(state: ServerState, reason: string): void;
  /** From now on the supervisor decides on the log's level. */
  govern(log: Logger): void;
  /** It listens: from now on it reports its load, and `stop` is called when the supervisor says so. */
  attend(worker: Worker, stop: (idleMs?: number) => void): void;
  /** It cannot start; `done` when the supervisor has been told. */
  fail(reason: string, done: () => void): void;
}

const LOAD_EVERY_MS = 1000;

/** @throws Error when the process was not started by a supervisor */
export function meetSupervisor(): Supervisor {
  if (!process.send) throw new Error('--supervised is for workers that a fleet starts: leave it out');
  const channel = process as Parameters<typeof sendTo>[0];
  const tell = (report: Report) => sendTo(channel, report);
  const start = Promise.withResolvers<Extract<Order, { type: 'start' }>>();
  let log: Logger | undefined;
  let worker: Worker | undefined;
  let stop: ((idleMs?: number) => void) | undefined;
  process.on('message', message => {
    if (!isOrder(message)) return;
    if (message.type === 'start') start.resolve(message);
    // Before it listens there is nothing to drain.
    else if (message.type === 'stop') stop ? stop(message.idleMs) : process.exit(0);
    else if (message.type === 'logs')
      tell({ type: 'logs', id: message.id, lines: worker?.host.stderrTail() });
    else if (message.type === 'log-level') {
      // A supervisor of another version may know levels that pino does not.
      if (log && isLogLevel(message.level)) setLogLevel(log, message.level);
      tell({ type: 'log-level', id: message.id, level: log?.level });
    }
  });
  return {
    start: start.promise,
    onState(state, reason) {
      tell({ type: 'state', state, reason, era: worker?.host.server.info?.era });
    },
    govern(own) {
      log = own;
    },
    attend(started, onStop) {
      worker = started;
      stop = onStop;
      const { instance, address, port } = started;
      tell({ type: 'listening', instance, address, port });
      const report = () => tell({ type: 'load', load: loadOf(started) });
      report();
      setInterval(report, LOAD_EVERY_MS).unref();
    },
    fail: (reason, done) => sendTo(channel, { type: 'failed', reason }, done),
  };
}

function loadOf({ host, traffic }: Worker): Extract<Report, { type: 'load' }>['load'] {
  const { inFlight, queueDepth, breakerOpen } = host.load.report();
  const latencies = host.load.latencies();
  return {
    inFlight,
    queue: queueDepth,
    idleMs: traffic.open > 0 || inFlight + queueDepth > 0 ? 0 : traffic.quietMs,
    p50Ms: latencies?.p50,
    p95Ms: latencies?.p95,
    breakerOpen,
    childRestarts: host.server.restarts,
  };
}

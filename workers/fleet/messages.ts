import type { ChildProcess } from 'node:child_process';
import { isObject } from '../../mesh/jsonrpc.ts';
import type { Service } from '../../mesh/registry.ts';
import type { LogLevel } from '../log-level.ts';
import type { ServerState } from '../stdio-server.ts';

/** What supervisor and worker tell each other over the IPC channel of the worker's process. */

/** Supervisor → worker. The service as it is in force: the file may be broken by now. */
export type Order =
  | { type: 'start'; service: Service; port: number }
  /** Drain and end; `idleMs` as `Worker.stop`. */
  | { type: 'stop'; idleMs?: number | undefined }
  | { type: 'logs'; id: number }
  /** Log at this level from now on. */
  | { type: 'log-level'; id: number; level: LogLevel };

/** Worker → supervisor. */
export type Report =
  | { type: 'listening'; instance: string; address: string; port: number }
  | { type: 'state'; state: ServerState; reason: string; era?: string | undefined }
  | { type: 'load'; load: WorkerLoad }
  /** It cannot start. */
  | { type: 'failed'; reason: string }
  /** The last lines of the MCP server's stderr; undefined: they are not known. */
  | { type: 'logs'; id: number; lines?: string[] | undefined }
  /** The level that is in force; undefined: there is no log yet. */
  | { type: 'log-level'; id: number; level?: string | undefined };

/** How a worker is, once a second. */
export interface WorkerLoad {
  inFlight: number;
  queue: number;
  /** Milliseconds since anything of a caller's went on, listening streams included. */
  idleMs: number;
  p50Ms?: number | undefined;
  p95Ms?: number | undefined;
  breakerOpen: boolean;
  /** Times the MCP server was started again. */
  childRestarts: number;
}

/** Says which of a worker's messages is one of ours; a worker of another version may send more. */
export function isReport(message: unknown): message is Report {
  return isObject(message) && typeof message.type === 'string';
}

export function isOrder(message: unknown): message is Order {
  return isObject(message) && typeof message.type === 'string';
}

/** Sends; a channel that has closed means that the other side has ended, which is noticed elsewhere. */
export function sendTo(
  channel: Pick<ChildProcess, 'connected' | 'send'>,
  message: Order | Report,
  done: () => void = () => {},
): void {
  if (channel.connected) channel.send(message, done);
  else done();
}

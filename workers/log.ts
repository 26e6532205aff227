import { type DestinationStream, type Logger, pino } from 'pino';
import { isLogLevel, LOG_LEVELS } from './log-level.ts';

interface LogOptions {
  /** pino's name of a level. */
  level: string;
  /** What each line says of its process. */
  base: Readonly<Record<string, unknown>>;
  /** Default: stderr, written at once, so that what a crash leaves behind is whole. */
  destination?: DestinationStream;
}

/** Credentials of callers and of the mesh, under the names that requests, settings and clients' errors give them. */
const SECRETS = [
  'authorization',
  'proxy-authorization',
  'x-api-key',
  'cookie',
  'set-cookie',
  'x-mesh-identity',
  'x-mesh-forward',
  'x-consul-token',
  'token',
  'password',
  'serviceKeys',
  'redisUrl',
];
/** Logged objects are nested no deeper: `{ request: { headers: { … } } }`. */
const DEPTHS = ['', '*.', '*.*.', '*.*.*.'];
/** Node takes SIGUSR1 for its debugger. */
const LEVEL_SIGNAL = 'SIGUSR2';

/** The worker's log: JSON lines without credentials. @throws Error on a level that pino does not know */
export function createLog({ level, base, destination }: LogOptions): Logger {
  if (!isLogLevel(level)) throw new Error(`MESH_LOG_LEVEL: "${level}" is none of ${LOG_LEVELS.join(', ')}`);
  const paths = DEPTHS.flatMap(depth => SECRETS.map(name => `${depth}["${name}"]`.replace('.[', '[')));
  return pino(
    { level, base: { ...base }, redact: { paths, censor: '[redacted]' } },
    destination ?? pino.destination({ fd: process.stderr.fd, sync: true }),
  );
}

/**
 * Sets the level of a running process: of what begins to log from now on, the next requests included.
 * @throws Error on a level that pino does not know
 */
export function setLogLevel(log: Logger, level: string): void {
  if (level === log.level) return;
  const before = log.level;
  log.level = level;
  // Told at the more talkative of both.
  const told = log.isLevelEnabled('info') ? log : log.child({}, { level: 'info' });
  told.info({ before, level }, 'log level changed');
}

/** `kill -USR2` turns debug lines on, and off again; the returned function ends that. */
export function switchLevelBySignal(log: Logger): () => void {
  const usual = log.level;
  const onSignal = () => setLogLevel(log, log.level === 'debug' ? usual : 'debug');
  process.on(LEVEL_SIGNAL, onSignal);
  return () => process.off(LEVEL_SIGNAL, onSignal);
}

/** pino's names, from the most talkative on. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

export function isLogLevel(name: unknown): name is LogLevel {
  return (LOG_LEVELS as readonly unknown[]).includes(name);
}

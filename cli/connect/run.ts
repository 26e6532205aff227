import { once } from 'node:events';
import { HEADERS, MCP_PATH, SERVICE_NAME_PATTERN } from '../../mesh/names.ts';
import { clientSettings } from '../../mesh/settings.ts';
import { EXIT, UsageError } from '../command.ts';
import type { ConnectOptions } from '../connect.ts';
import { readUrl } from '../option-values.ts';
import { tell } from '../output.ts';
import { plain } from '../table.ts';
import type { Side } from './choose-side.ts';
import { serveStdio } from './stdio.ts';

/** Serves stdio until the client has had enough. */
export async function runConnect(service: string, options: ConnectOptions): Promise<number> {
  if (!SERVICE_NAME_PATTERN.test(service))
    throw new UsageError(`"${plain(service)}" is no name of a service`);
  if (options.percent !== undefined && options.legacy === undefined)
    throw new UsageError('--percent goes with --legacy, which names the old server');
  // A client that does not want to read it must not end us by that.
  process.stderr.on('error', () => {});
  const settings = clientSettings();
  const base = options.url ?? readUrl('MESH_URL')(settings.url);
  const side = await sideOf({ ...options, service, base });
  if (side.to === 'ended') return side.code;
  const headers = {
    // The dice have been thrown: the gateway need not do it again.
    ...(options.legacy === undefined ? {} : { [HEADERS.side]: 'mesh' }),
    ...(settings.key === undefined ? {} : { authorization: `Bearer ${settings.key}` }),
  };
  const mesh = { url: `${base}${MCP_PATH}/${service}`, headers };
  await serveStdio({
    endpoint: side.to === 'mesh' ? mesh : side.endpoint,
    tell: text => tell(plain(text)),
    waitMs: options.wait * 1000,
  });
  // What was written last has to get out before the process ends.
  if (process.stdout.writableLength > 0) await Promise.race([once(process.stdout, 'drain'), ended()]);
  return EXIT.ok;
}

/** Most sessions have no old server: what it takes to find one is loaded when it is needed. */
async function sideOf(options: ConnectOptions & { service: string; base: string }): Promise<Side> {
  const { legacy } = options;
  if (legacy === undefined) return { to: 'mesh' };
  const { chooseSide } = await import('./choose-side.ts');
  return chooseSide({ ...options, legacy });
}

function ended(): Promise<unknown> {
  return once(process.stdout, 'close').catch(() => {});
}

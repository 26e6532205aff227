import { spawn } from 'node:child_process';
import { isObject } from '../../mesh/jsonrpc.ts';
import { startSettings } from '../../mesh/settings.ts';
import { readClient } from '../clients/formats.ts';
import { UsageError } from '../command.ts';
import { connectGateway, readText } from '../gateway.ts';
import { type OldWay, oldWayOf, readEntry } from '../migrate/entry.ts';
import { readShare } from '../migrate/share.ts';
import { tell } from '../output.ts';
import type { Endpoint } from './link.ts';

interface SideChoice {
  service: string;
  base: string;
  /** `<file>#<entry>` of the old server. */
  legacy: string;
  /** Whose file it is. */
  client?: string | undefined;
  percent?: number | undefined;
}

/** Where this session goes; the old server over stdio has had the session already, and ended with this code. */
export type Side = { to: 'mesh' } | { to: 'endpoint'; endpoint: Endpoint } | { to: 'ended'; code: number };

interface Share {
  percent: number;
  /** Who says so. */
  source: string;
}

const STATUS_MS = 3000;
const SIGNAL_CODE = 128;

/** Decides for this session, once, says so on stderr, and lets the old server have it where that is how it falls. */
export async function chooseSide(choice: SideChoice, random = Math.random): Promise<Side> {
  const { service, legacy, client } = choice;
  const cut = legacy.lastIndexOf('#');
  const [file, name] = [legacy.slice(0, cut), legacy.slice(cut + 1)];
  if (cut < 1 || name === '') throw new UsageError('--legacy: it must be <file>#<entry>');
  const { percent, source } = await shareOf(choice, file);
  const isMesh = goesToMesh(percent, random());
  tell(
    `this session goes to the ${isMesh ? 'mesh' : 'old server'}: ${percent} of 100 go to the mesh (${source})`,
  );
  if (isMesh) return { to: 'mesh' };
  const { environment } = startSettings();
  const format = client === undefined ? undefined : readClient(client);
  const way = oldWayOf(readEntry(file, { client: format, service, name }), environment);
  if (way.kind === 'http') return { to: 'endpoint', endpoint: way };
  return { to: 'ended', code: await runOld(way, environment) };
}

/** @param dice from 0 to below 1 */
export function goesToMesh(percent: number, dice: number): boolean {
  return dice * 100 < percent;
}

async function shareOf({ percent, base, service }: SideChoice, file: string): Promise<Share> {
  if (percent !== undefined) return { percent, source: '--percent' };
  const own = readShare(file);
  if (own !== undefined) return { percent: own, source: 'mesh migrate' };
  try {
    const signal = AbortSignal.timeout(STATUS_MS);
    const status: unknown = JSON.parse(
      await readText(await connectGateway(base).send(`/${service}/status`, { signal })),
    );
    const said = isObject(status) ? status.traffic_percent : undefined;
    if (typeof said === 'number') return { percent: said, source: 'the registry' };
    throw new Error('it does not say traffic_percent');
  } catch (error) {
    return { percent: 0, source: `the gateway cannot be asked: ${(error as Error).message}` };
  }
}

/** The client's own pipes are the old server's: nothing of ours is between them. */
async function runOld(
  { command, args, env, cwd }: OldWay & { kind: 'stdio' },
  environment: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  const inherited = Object.entries(environment).filter(([name]) => !name.startsWith('MESH_'));
  const child = spawn(command, args, {
    stdio: 'inherit',
    env: { ...Object.fromEntries(inherited), ...env },
    ...(cwd === undefined ? {} : { cwd }),
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'ENOENT' ? 'command or folder not found' : error.message;
      reject(new Error(`the old server cannot be started: ${command}: ${why}`));
    });
    child.on('exit', code => resolve(code ?? SIGNAL_CODE));
  });
}

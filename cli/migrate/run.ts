import { SERVICE_NAME_PATTERN } from '../../mesh/names.ts';
import { findService, loadRegistry } from '../../mesh/registry.ts';
import { clientSettings, registryEnvironment, startSettings } from '../../mesh/settings.ts';
import { EXIT, UsageError } from '../command.ts';
import type { MigrateOptions } from '../migrate.ts';
import { readUrl } from '../option-values.ts';
import { answer, tell } from '../output.ts';
import { plain } from '../table.ts';
import { type Entry, oldWayOf, readEntry } from './entry.ts';
import { compareWays, type Parity } from './parity.ts';
import { printParity } from './print-parity.ts';
import { readProbes } from './probes.ts';
import { rollBack } from './roll-back.ts';
import { setPercent } from './set-percent.ts';
import { reach, type Side, serviceOf, startServer } from './side.ts';
import { switchClient } from './switch-client.ts';

/** `mesh migrate`: which of its parts is asked for. */
export async function runMigrate(service: string, options: MigrateOptions): Promise<number> {
  if (!SERVICE_NAME_PATTERN.test(service))
    throw new UsageError(`"${plain(service)}" is no name of a service`);
  checkUsage(options);
  const { config, switch: isSwitch, json } = options;
  if (options.rollback) return rollBack(service, { ...options, config: config ?? '' });
  if (options.percent !== undefined && !isSwitch) return setPercent(service, options.percent, options);
  const base = options.url ?? readUrl('MESH_URL')(clientSettings().url);
  const entry = config === undefined ? undefined : readEntry(config, { ...options, service });
  const parity = await runParity(service, entry, base, options);
  if (!isSwitch || !entry) {
    answer(json, parity, printParity(parity));
    return parity.differences.length === 0 ? EXIT.ok : EXIT.failed;
  }
  const isAccepted = parity.differences.length === 0 || options.acceptDifferences === true;
  const switched = isAccepted ? switchClient(entry, service, { ...options, base }) : undefined;
  answer(json, { ...parity, switched: switched ?? null }, printParity(parity));
  if (!switched) tell('nothing is switched: --accept-differences does so all the same');
  else
    tell(
      `${switched.file}: ${switched.entry} is of the mesh now; the file as it was is ${switched.backup}; restart the client`,
    );
  return isAccepted ? EXIT.ok : EXIT.failed;
}

function checkUsage(options: MigrateOptions): void {
  const { config, rollback, percent } = options;
  const needs = (flag: string, wanted: boolean | undefined, other: string, isThere: unknown) => {
    if (wanted === true && isThere !== true) throw new UsageError(`${flag} goes with ${other}`);
  };
  const isThere = config !== undefined;
  needs('--switch', options.switch, '--config, which names the file to change', isThere);
  needs('--rollback', rollback, '--config, which names the file to bring back', isThere);
  needs('--name', options.name !== undefined, '--config', isThere);
  needs('--client', options.client !== undefined, '--config', isThere);
  needs('--accept-differences', options.acceptDifferences, '--switch', options.switch);
  needs('--stdio', options.stdio, '--switch', options.switch);
  needs('--key-file', options.keyFile !== undefined, '--switch', options.switch);
  needs('--entry-only', options.entryOnly, '--rollback', rollback);
  if (rollback && percent !== undefined) throw new UsageError('--rollback and --percent do not go together');
}

async function runParity(
  service: string,
  entry: Entry | undefined,
  base: string,
  options: MigrateOptions,
): Promise<Parity> {
  const probes = readProbes(options.probe ?? []);
  const timeoutMs = options.timeout * 1000;
  const old = await startOld(service, entry, options, timeoutMs);
  try {
    const { key } = clientSettings();
    return await compareWays({ service, old, base, key, probes, calls: options.calls, timeoutMs });
  } finally {
    await old.side.close();
  }
}

/** As the client would start it: with the environment that we have, but for what is the mesh's. */
async function startOld(
  name: string,
  entry: Entry | undefined,
  options: MigrateOptions,
  timeoutMs: number,
): Promise<{ side: Side; where: string }> {
  if (!entry) {
    const path = options.registry ?? startSettings().registryPath;
    const service = findService(loadRegistry(path, { env: registryEnvironment(), only: name }), name);
    const where = `${service.command} (${path})`;
    return { side: await startServer({ ...service, cwd: service.cwd ?? '.' }, { timeoutMs }), where };
  }
  const { environment } = startSettings();
  const way = oldWayOf(entry, environment);
  if (way.kind === 'http') return { side: await reach(way, { timeoutMs }), where: way.url };
  const inherited = Object.keys(environment).filter(variable => !variable.startsWith('MESH_'));
  const where = `${way.command} (${entry.server.place})`;
  return { side: await startServer(serviceOf(way, inherited), { timeoutMs }), where };
}

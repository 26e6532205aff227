import { readFileSync } from 'node:fs';
import { findService, parseRegistry } from '../../mesh/registry.ts';
import { startSettings } from '../../mesh/settings.ts';
import { editFile } from '../atomic-file.ts';
import { EXIT } from '../command.ts';
import { mergeRegistry } from '../import/merge-registry.ts';
import type { MigrateOptions } from '../migrate.ts';
import { answer } from '../output.ts';
import { findSwitch } from './roll-back.ts';
import { writeShare } from './share.ts';

/**
 * Sets the share of new sessions that go to the mesh: of one client, beside its file, or of the service, in the
 * registry, which gateways hear of.
 * @throws Error naming the file; RegistryError
 */
export function setPercent(service: string, percent: number, options: MigrateOptions): number {
  const { config, json } = options;
  if (config !== undefined) {
    const { backup, entry } = findSwitch(service, { ...options, config });
    if (!JSON.stringify(entry).includes('--legacy'))
      throw new Error(
        `${config}: ${service} was switched as a whole; --rollback, then --switch --percent moves it gradually`,
      );
    writeShare(backup, percent);
    return say({ service, percent, file: config }, json);
  }
  const path = options.registry ?? startSettings().registryPath;
  // Names alone count here: no variable of the registry has to be set.
  const { name } = findService(
    parseRegistry(readFileSync(path, 'utf8'), path, { env: {}, only: '' }),
    service,
  );
  const change = { kind: 'replace', entry: { name, traffic_percent: percent } } as const;
  editFile(path, text => mergeRegistry(text, [change], path), 'mesh migrate');
  return say({ service, percent, file: path }, json);
}

function say(done: { service: string; percent: number; file: string }, json: boolean | undefined): number {
  const { service, percent, file } = done;
  answer(json, done, `${file}: ${percent} of 100 new sessions of ${service} go to the mesh\n`);
  return EXIT.ok;
}

import { existsSync } from 'node:fs';
import { startSettings } from '../../mesh/settings.ts';
import { EXIT } from '../command.ts';
import { answer } from '../output.ts';
import { plain } from '../table.ts';
import type { ValidateOptions } from '../validate.ts';
import { type AccessSummary, checkAccess } from './access.ts';
import { checkRegistry, type RegistrySummary } from './registry.ts';

interface Remark {
  file: string;
  /** null: it is about the whole file. */
  line: number | null;
  /** `field: what` */
  text: string;
}

/** Prints what is wrong or odd in both files and gives the exit code. */
export function validate({ registry: registryPath, access: accessPath, json }: ValidateOptions): number {
  const settings = startSettings();
  const registry = checkRegistry(registryPath ?? settings.registryPath);
  const path = accessPath ?? settings.policyPath;
  const names = registry.summary?.services;
  // Without the file, `mesh up` starts all the same, and lets nobody in.
  const isAbsent = accessPath === undefined && settings.environment.MESH_ACCESS_POLICY === undefined;
  const access =
    isAbsent && !existsSync(path)
      ? { faults: [], warnings: [`${path}: is not there: nobody is let in`], summary: undefined }
      : checkAccess(path, names);
  const faults = [...registry.faults, ...access.faults];
  const warnings = [...registry.warnings, ...access.warnings];
  const found = {
    ok: faults.length === 0,
    faults: faults.map(toRemark),
    warnings: warnings.map(toRemark),
    registry: registry.summary ?? null,
    access: access.summary ?? null,
  };
  const lines = [
    ...faults,
    ...warnings.map(text => `warning: ${text}`),
    ...describe(registry.summary, access.summary, { faults: faults.length, warnings: warnings.length }),
  ];
  answer(json, found, lines.map(line => `${plain(line)}\n`).join(''));
  return found.ok ? EXIT.ok : EXIT.failed;
}

function describe(
  registry: RegistrySummary | undefined,
  access: AccessSummary | undefined,
  counts: { faults: number; warnings: number },
): string[] {
  const total = [plural(counts.faults, 'fault'), plural(counts.warnings, 'warning')].join(', ');
  return [
    ...(registry
      ? [`${registry.path}: ${plural(registry.services.length, 'service')}, ${registry.instances} instances`]
      : []),
    ...(access
      ? [
          `${access.path}: ${plural(access.roles.length, 'role')}, ${plural(access.keys, 'key')}, ${plural(access.issuers, 'issuer')} of tokens`,
        ]
      : []),
    total,
  ];
}

function toRemark(text: string): Remark {
  const [, file = '', line, rest = text] = /^(.*?):(?:(\d+):)? (.*)$/s.exec(text) ?? [];
  return { file, line: line === undefined ? null : Number(line), text: rest };
}

function plural(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}

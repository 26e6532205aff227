import { mkdirSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Service } from '../../mesh/registry.ts';
import { inheritedEnvironment } from '../../mesh/settings.ts';
import { FOLDER_PREFIX } from './orphans.ts';
import { TAG_VARIABLE } from './process-table.ts';

export interface ChildEnvironment {
  variables: Record<string, string>;
  /** Removes the child's own folders; safe to call twice. */
  remove(): Promise<void>;
}

/**
 * The variables of a child: those that the registry names, a temp folder of its own, and the tag that its processes
 * are found by. TMPDIR is private and goes with the child, so that crash after crash cannot fill the disk and no
 * service meets another's files. HOME is what `env_allow` says (by default it is allowed): npx and uvx keep their
 * downloads there, and with a new one each start would fetch the server anew. A service whose registry entry withholds
 * HOME gets an empty one, not the real one by way of the password file; the XDG folders follow from it. The
 * registry's own `env` has the last word, the tag excepted.
 */
export function createEnvironment(service: Service, tag: string, log: Logger): ChildEnvironment {
  const given = { ...inheritedEnvironment(service.env_allow), ...service.env };
  const missing = ['TMPDIR', 'HOME'].filter(name => given[name] === undefined);
  const folder = missing.length > 0 ? createFolder(tag, log) : undefined;
  const own = folder === undefined ? [] : missing.map(name => [name, join(folder, name.toLowerCase())]);
  return {
    variables: { ...Object.fromEntries(own), ...given, [TAG_VARIABLE]: tag },
    async remove() {
      if (folder === undefined) return;
      await rm(folder, { recursive: true, force: true }).catch((error: Error) =>
        log.warn({ folder, err: error }, "the server's temp folder cannot be removed: remove it by hand"),
      );
    },
  };
}

/** A full or read-only disk is the server's trouble only if it writes there: it is started all the same. */
function createFolder(tag: string, log: Logger): string | undefined {
  try {
    const folder = mkdtempSync(join(tmpdir(), `${FOLDER_PREFIX}${tag}-`));
    for (const name of ['tmpdir', 'home']) mkdirSync(join(folder, name), { mode: 0o700 });
    return folder;
  } catch (error) {
    log.warn({ err: error }, `the server gets no temp folder of its own: ${tmpdir()} must be writable`);
    return undefined;
  }
}

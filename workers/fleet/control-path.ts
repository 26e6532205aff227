import { mkdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { meshIdOf } from './orphans.ts';

interface Places {
  registryPath: string;
  /** MESH_STATE_DIR */
  stateDir?: string | undefined;
  /** XDG_RUNTIME_DIR */
  runtimeDir?: string | undefined;
}

/** Longest path of a Unix socket (sun_path, unix(7)), its closing NUL excluded. */
const PATH_MAX = 107;

/** Where the supervisor of a registry is spoken to; the same for all who name that file. */
export function controlPath({ registryPath, stateDir, runtimeDir }: Places): string {
  const name = `mcp-mesh-${meshIdOf(registryPath)}.sock`;
  const folder = stateDir || runtimeDir || join(tmpdir(), `mcp-mesh-${process.geteuid?.() ?? 0}`);
  return join(resolve(folder), name);
}

/**
 * Makes sure that nobody else can put a socket of theirs there.
 * @throws Error when the folder belongs to others, or the path is too long for a socket
 */
export function prepareFolder(path: string): void {
  if (Buffer.byteLength(path) > PATH_MAX) {
    throw new Error(
      `${path} is too long for a socket (${PATH_MAX} bytes): set MESH_STATE_DIR to a shorter one`,
    );
  }
  const folder = dirname(path);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { uid, mode } = statSync(folder);
  const others = (mode & 0o022) !== 0 && (mode & 0o1000) === 0;
  if (others || (uid !== process.geteuid?.() && uid !== 0)) {
    throw new Error(
      `${folder} can be written by others: set MESH_STATE_DIR to a folder of your own (mode 0700)`,
    );
  }
}

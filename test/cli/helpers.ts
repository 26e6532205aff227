import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export const MESH = join(import.meta.dirname, '../../cli/mesh.ts');
/** Most of a run is the start of Node: halved. */
const compileCache = mkdtempSync(join(tmpdir(), 'mesh-keys-cache-'));
process.on('exit', () => rmSync(compileCache, { recursive: true }));

export interface Result {
  code: number | null;
  out: string;
  err: string;
}

export function mesh(...args: string[]): Promise<Result> {
  return run(process.execPath, [MESH, ...args]);
}

export function run(command: string, args: string[]): Promise<Result> {
  return new Promise(resolve => {
    const { MESH_ACCESS_POLICY: _policy, ...env } = process.env;
    const child = execFile(
      command,
      args,
      { env: { ...env, NODE_COMPILE_CACHE: compileCache }, timeout: 30_000 },
      (_error, out, err) => resolve({ code: child.exitCode, out, err }),
    );
  });
}

export function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-keys-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

import { type ChildProcess, execFile } from 'node:child_process';
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

interface RunOptions {
  env?: Record<string, string>;
  /** What is on stdin. */
  input?: string;
  /** Gets the process when it has been started. */
  onStart?: (child: ChildProcess) => void;
}

export function mesh(...args: string[]): Promise<Result> {
  return run(process.execPath, [MESH, ...args]);
}

export function meshWith(options: RunOptions, ...args: string[]): Promise<Result> {
  return run(process.execPath, [MESH, ...args], options);
}

export function run(
  command: string,
  args: string[],
  { env: more = {}, input, onStart }: RunOptions = {},
): Promise<Result> {
  return new Promise(resolve => {
    const { MESH_ACCESS_POLICY: _policy, ...env } = process.env;
    const child = execFile(
      command,
      args,
      { env: { ...env, NODE_COMPILE_CACHE: compileCache, ...more }, timeout: 30_000 },
      (_error, out, err) => resolve({ code: child.exitCode, out, err }),
    );
    if (input !== undefined) child.stdin?.end(input);
    onStart?.(child);
  });
}

export function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-keys-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

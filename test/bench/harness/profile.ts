import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

/** Module for `--import` of a program that is to be profiled, with the variable BENCH_FOLDER. */
export const PROFILED = join(import.meta.dirname, 'profiled.mjs');

/** Where the time of a sample went, and through which functions; innermost first. */
export interface Sample {
  us: number;
  frames: Frame[];
}

export interface Frame {
  name: string;
  url: string;
  /** From 0. */
  line: number;
}

interface ProfileNode {
  id: number;
  callFrame: { functionName: string; url: string; lineNumber: number };
  children?: number[];
}

interface Profile {
  nodes: ProfileNode[];
  samples: number[];
  timeDeltas: number[];
}

const POLL_MS = 20;

/** Profiles a process that has the module while `run` runs. */
export async function profileProcess(
  pid: number,
  folder: string,
  run: () => Promise<unknown>,
): Promise<Sample[]> {
  const path = join(folder, 'profile.json');
  for (const old of [path, `${path}.begun`]) rmSync(old, { force: true });
  process.kill(pid, 'SIGUSR2');
  await untilThere(`${path}.begun`);
  await run();
  process.kill(pid, 'SIGUSR2');
  await untilThere(path);
  return samplesOf(JSON.parse(readFileSync(path, 'utf8')));
}

/** For a bundle of esbuild: the source file in which each of its lines was. */
export function readModules(bundle: string): (line: number) => string {
  const modules: string[] = [];
  let current = '';
  for (const line of readFileSync(bundle, 'utf8').split('\n')) {
    current = /^\s*\/\/ (\S+\.(?:ts|js|cjs|mjs))$/.exec(line)?.[1] ?? current;
    modules.push(current);
  }
  return line => modules[line] ?? '';
}

function samplesOf({ nodes, samples, timeDeltas }: Profile): Sample[] {
  const frames = new Map<number, Frame[]>();
  const byId = new Map(nodes.map(node => [node.id, node]));
  const walk = (node: ProfileNode, callers: Frame[]): void => {
    const { functionName: name, url, lineNumber: line } = node.callFrame;
    const own = [{ name, url, line }, ...callers];
    frames.set(node.id, own);
    for (const id of node.children ?? []) {
      const child = byId.get(id);
      if (child) walk(child, own);
    }
  };
  const [root] = nodes;
  if (root) walk(root, []);
  return samples.map((id, i) => ({ us: timeDeltas[i] ?? 0, frames: frames.get(id) ?? [] }));
}

async function untilThere(path: string): Promise<void> {
  while (!existsSync(path)) await pause(POLL_MS);
}

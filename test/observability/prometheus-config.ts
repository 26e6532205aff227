import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

export interface Rule {
  alert?: string;
  record?: string;
  expr: string;
  for?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
}

export const ROOT = join(import.meta.dirname, '../..');
export const FOLDER = join(ROOT, 'config/prometheus');

export function readRules(): Rule[] {
  return ruleFiles().flatMap(path => {
    const { groups } = parse(readFileSync(path, 'utf8')) as { groups: { rules: Rule[] }[] };
    return groups.flatMap(({ rules }) => rules);
  });
}

export function ruleFiles(): string[] {
  return filesOf('rules');
}

export function testFiles(): string[] {
  return filesOf('tests');
}

/**
 * Makes rules, or a dashboard's query, run in a fraction of the time: their windows, waits and intervals, and nothing
 * else of them. An age that is compared with a number is no window.
 */
export function compress(text: string, factor: number): string {
  const shorter = (duration: string) => `${Math.round(toMs(duration) / factor)}ms`;
  return text
    .replaceAll(/\[(\d+(?:ms|s|m|h|d))\]/g, (_, duration) => `[${shorter(duration)}]`)
    .replaceAll(
      /^(\s+(?:for|interval): )(\d+(?:ms|s|m|h|d))$/gm,
      (_, key, duration) => key + shorter(duration),
    );
}

function toMs(duration: string): number {
  const [, count, unit] = /^(\d+)(\w+)$/.exec(duration) ?? [];
  return (
    Number(count) * ({ ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit ?? ''] ?? Number.NaN)
  );
}

function filesOf(name: string): string[] {
  const folder = join(FOLDER, name);
  return readdirSync(folder)
    .filter(file => file.endsWith('.yml'))
    .toSorted()
    .map(file => join(folder, file));
}

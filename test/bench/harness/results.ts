import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { type Measured, type Table, toMarkdown } from './number.ts';

/** What one script measured, and where. */
export interface Run {
  name: string;
  conditions: Conditions;
  numbers: (Measured & { holds: boolean })[];
  tables: Table[];
  /** What it printed beside. */
  lines: string[];
  /** It did not end well, and no number says why. */
  failure?: string;
}

interface Conditions {
  date: string;
  /** Of one minute, before the script began. */
  load: number;
  machine: string;
  node: string;
  versions: Record<string, string>;
}

const ROOT = join(import.meta.dirname, '../../..');
const JSON_FILE = join(ROOT, 'BENCHMARKS.json');
const MARKDOWN_FILE = join(ROOT, 'BENCHMARKS.md');
const NOTES = join(import.meta.dirname, '../NOTES.md');
/** Whose versions matter to what is measured. */
const PACKAGES = ['fastify', 'pino', 'kong-pdk', '@msgpack/msgpack', 'prom-client', 'esbuild'];
const INTRODUCTION = `# Benchmarks

By \`npm run bench\`; \`npm run bench -- <script> …\` renews the figures of some scripts of test/bench only, and
\`npm run bench -- --quick\` prints without keeping anything. The same figures as JSON: BENCHMARKS.json.

Ratios are of one run, in which rounds of both sides alternate. Load generator, bridge and stdio server share the
machine; CPU time is what the system counted for the processes (without the stdio server, where a table does not say
otherwise), and depends far less than times do on what else it did. The gateway is Kong's stand-in (kong/dev), which is
not Kong and much slower; the plugin and its server behind it are the real ones.
`;

export function conditions(): Conditions {
  const [cpu] = cpus();
  const memory = Math.round(totalmem() / 2 ** 30);
  const require = createRequire(import.meta.url);
  const version = (name: string) =>
    JSON.parse(readFileSync(require.resolve(`${name}/package.json`), 'utf8')).version;
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    load: loadavg()[0] ?? 0,
    machine: `${cpus().length} × ${cpu?.model ?? 'unknown CPU'}, ${memory} GB, Linux ${release()}`,
    node: process.version,
    versions: Object.fromEntries(PACKAGES.map(name => [name, version(name)])),
  };
}

/** Puts runs in the place of older ones of the same scripts; returns the paths of the files. */
export function store(runs: readonly Run[]): string[] {
  const kept: Run[] = existsSync(JSON_FILE) ? JSON.parse(readFileSync(JSON_FILE, 'utf8')) : [];
  const renewed = new Set(runs.map(({ name }) => name));
  const all = [...kept.filter(({ name }) => !renewed.has(name)), ...runs].toSorted((a, b) =>
    a.name.localeCompare(b.name),
  );
  writeFileSync(JSON_FILE, `${JSON.stringify(all, undefined, 1)}\n`);
  writeFileSync(
    MARKDOWN_FILE,
    [INTRODUCTION, bars(all), ...all.map(section), readFileSync(NOTES, 'utf8')].join('\n'),
  );
  return [MARKDOWN_FILE, JSON_FILE];
}

/** All numbers that have one, in one table. */
function bars(runs: readonly Run[]): string {
  const rows = runs.flatMap(({ name, numbers, failure }) => [
    ...numbers.map(number => toMarkdown({ type: 'number', number })),
    ...(failure === undefined ? [] : [`| ${name} ${failure} | – | – | **fails** |`]),
  ]);
  return ['## Bars', '', '| Number | Measured | Bar | |', '|---|---:|---:|---|', ...rows, ''].join('\n');
}

function section({ name, conditions: at, tables, lines }: Run): string {
  const versions = Object.entries(at.versions).map(([key, version]) => `${key} ${version}`);
  const where = `${at.date} UTC; ${at.machine}; Node ${at.node}, ${versions.join(', ')}; load ${at.load.toFixed(1)} before.`;
  const printed = lines.some(line => line.trim() !== '') ? ['```', ...lines, '```', ''] : [];
  const shown = tables.flatMap(table => [toMarkdown({ type: 'table', table }), '']);
  return [`## ${name}`, '', where, '', ...shown, ...printed].join('\n');
}

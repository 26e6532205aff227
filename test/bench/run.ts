import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { parseArgs } from 'node:util';
import { type Result, toMarkdown } from './harness/number.ts';
import { conditions, type Run, store } from './harness/results.ts';

const USAGE = `usage: npm run bench -- [--quick] [<script> …]

Runs the scripts of test/bench that are named, or all. BENCHMARKS.md and BENCHMARKS.json then hold their figures instead
of older ones, also in part; with --quick (short, hardly to be trusted) nothing is kept.
Ends with 1 when a number misses its bar or a script fails.`;

const scripts = readdirSync(import.meta.dirname)
  .filter(name => /^[\w-]+\.ts$/.test(name) && name !== basename(import.meta.filename))
  .map(name => basename(name, '.ts'))
  .toSorted();
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false } },
});
const named = positionals.length === 0 ? scripts : positionals;
const unknown = named.filter(name => !scripts.includes(name));
if (unknown.length > 0) {
  console.error(`${USAGE}\n\nunknown: ${unknown.join(', ')}; there are: ${scripts.join(', ')}`);
  process.exit(2);
}
const runs: Run[] = [];
for (const name of named) {
  console.log(`\n# ${name}\n`);
  runs.push(await run(name));
}
if (values.quick) console.log(`\n${JSON.stringify(runs)}`);
else console.log(`\n${store(runs).join('\n')}`);

/** Runs a script to its end. One that fails without a number that says why makes us fail, too. */
async function run(name: string): Promise<Run> {
  const before = conditions();
  const child = fork(join(import.meta.dirname, `${name}.ts`), [], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    env: { ...process.env, BENCH_QUICK: String(values.quick) },
  });
  const results: Result[] = [];
  const lines: string[] = [];
  child.on('message', message => {
    const result = message as Result;
    results.push(result);
    console.log(toMarkdown(result));
  });
  const reader = createInterface(child.stdout as Readable).on('line', line => {
    console.log(line);
    lines.push(line);
  });
  const [[code, signal]] = await Promise.all([once(child, 'exit'), once(reader, 'close')]);
  const how = signal ?? code;
  if (how !== 0) process.exitCode = 1;
  const missed = results.some(result => result.type === 'number' && !result.number.holds);
  return {
    name,
    conditions: before,
    numbers: results.filter(result => result.type === 'number').map(({ number }) => number),
    tables: results.filter(result => result.type === 'table').map(({ table }) => table),
    lines,
    ...(how === 0 || missed ? {} : { failure: `ended with ${how}` }),
  };
}

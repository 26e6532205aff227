import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';

/**
 * `npm run bench`: all scripts of this folder, one after the other; what they print goes into RESULTS.md, rows of
 * numbers with a bar into one table. Ends with 1 when a number misses its bar or a script fails.
 */

const FOLDER = import.meta.dirname;
const RESULTS = join(FOLDER, 'RESULTS.md');
const HEAD = '| Number | Measured | Bar | |\n|---|---|---|---|\n';

const scripts = readdirSync(FOLDER)
  .filter(name => name.endsWith('.ts') && name !== basename(import.meta.filename))
  .toSorted();
const load = (loadavg()[0] ?? 0).toFixed(1);
const rows: string[] = [];
const figures: string[] = [];
for (const script of scripts) {
  console.log(`\n${script}`);
  const { lines, how } = await run(script);
  const numbers = lines.filter(isRow);
  rows.push(...numbers);
  const others = lines.filter(line => !isRow(line)).join('\n');
  if (others.trim() !== '') figures.push(`\n## ${script}\n\n\`\`\`\n${others}\n\`\`\`\n`);
  if (how === 0) continue;
  process.exitCode = 1;
  if (!numbers.some(row => row.includes('misses')))
    rows.push(`| ${script} ends with ${how} | – | – | **fails** |`);
}
const day = new Date().toISOString().slice(0, 10);
const processors = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}`;
const conditions = `${day}, Node ${process.version}, ${processors}, load ${load} at the start. By \`npm run bench\`.`;
writeFileSync(RESULTS, `# Benchmarks\n\n${conditions}\n\n${HEAD}${rows.join('\n')}\n${figures.join('')}`);
console.log(`\n${RESULTS}`);

function isRow(line: string): boolean {
  return line.startsWith('| ');
}

/** Runs a script to its end; resolves with the lines that it printed, and its exit code or signal. */
async function run(script: string): Promise<{ lines: string[]; how: number | string }> {
  const child = spawn(process.execPath, [join(FOLDER, script)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  const reader = createInterface(child.stdout).on('line', line => {
    console.log(line);
    lines.push(line);
  });
  const [[code, signal]] = await Promise.all([once(child, 'exit'), once(reader, 'close')]);
  return { lines, how: signal ?? code };
}

import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const SUITES = ['0.1', '2025-11-25', '2026-07-28'] as const;

export type SuiteName = (typeof SUITES)[number];

/** A check that did not pass. */
export interface Finding {
  scenario: string;
  check: string;
  message: string;
}

export interface SuiteReport {
  /** Scenarios that ran to their end and left their checks. */
  scenarios: string[];
  /** Scenarios that broke off: their checks are not counted. */
  unfinished: string[];
  /** Checks, as the suite's own summary counts them. */
  passed: number;
  failed: number;
  failures: Finding[];
  warnings: Finding[];
  /** What the suite printed. */
  output: string;
}

interface Check {
  id: string;
  status: 'SUCCESS' | 'FAILURE' | 'WARNING' | 'SKIPPED' | 'INFO';
  errorMessage?: string;
}

interface Command {
  /** Alias of the pinned release in package.json. */
  release: string;
  args: string[];
  /** How many scenarios it runs. One that never ends leaves no results, and the suite does not say so. */
  scenarios: number;
}

const COMMANDS: Record<SuiteName, Command> = {
  '0.1': { release: 'conformance-0.1', args: ['--suite', 'all'], scenarios: 32 },
  '2025-11-25': { release: 'conformance-0.2', args: ['--requirements', '2025-11-25'], scenarios: 33 },
  '2026-07-28': { release: 'conformance-0.2', args: ['--requirements', '2026-07-28'], scenarios: 50 },
};
/** Below the limit of one test (npm test), so that what was printed is seen. */
const DEADLINE_MS = 100_000;
const PRINTED_LIMIT = 64 * 1024 * 1024;
/** Results go to `[server-]<scenario>-<ISO time with dashes>`. */
const RESULT_FOLDER = /^(?:server-)?(.+?)-\d{4}-\d\d-\d\dT[\d-]+Z$/;

/**
 * Runs one official suite against a server.
 * @param url the endpoint; on localhost, or the scenario dns-rebinding-protection cannot pass
 * @throws Error with the end of what the suite printed, when it did not finish or left no results
 */
export async function runSuite(suite: SuiteName, url: string, scenario?: string): Promise<SuiteReport> {
  const folder = await mkdtemp(join(tmpdir(), 'conformance-'));
  try {
    const output = await runCommand(suite, url, folder, scenario);
    const report = await readReport(folder);
    const expected = scenario === undefined ? COMMANDS[suite].scenarios : 1;
    const found = report.scenarios.length + report.unfinished.length;
    if (found !== expected) {
      const counts = `results of ${found} scenarios instead of ${expected}`;
      throw new Error(`suite ${suite} on ${url} left ${counts}:\n${output.slice(-3000)}`);
    }
    return { ...report, output };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function runCommand(suite: SuiteName, url: string, folder: string, scenario?: string): Promise<string> {
  const { release, args } = COMMANDS[suite];
  const program = fileURLToPath(new URL(`../../node_modules/${release}/dist/index.js`, import.meta.url));
  const selection = scenario === undefined ? args : oneScenario(suite, scenario);
  const argv = [program, 'server', '--url', url, ...selection, '-o', folder];
  return new Promise((resolve, reject) => {
    const options = { timeout: DEADLINE_MS, maxBuffer: PRINTED_LIMIT };
    execFile(process.execPath, argv, options, (error, stdout, stderr) => {
      const output = `${stdout}${stderr}`;
      // Exit code 1 is how it says that checks failed; those are in the results.
      if (error && error.code !== 1) {
        const how = error.killed ? `did not finish in ${DEADLINE_MS} ms` : error.message.slice(0, 200);
        reject(new Error(`suite ${suite} on ${url}: ${how}:\n${output.slice(-3000)}`));
      } else resolve(output);
    });
  });
}

function oneScenario(suite: SuiteName, scenario: string): string[] {
  return suite === '0.1' ? ['--scenario', scenario] : ['--scenario', scenario, '--spec-version', suite];
}

async function readReport(folder: string): Promise<Omit<SuiteReport, 'output'>> {
  const report: Omit<SuiteReport, 'output'> = {
    scenarios: [],
    unfinished: [],
    passed: 0,
    failed: 0,
    failures: [],
    warnings: [],
  };
  for (const entry of (await readdir(folder)).sort()) {
    const scenario = RESULT_FOLDER.exec(entry)?.[1] ?? entry;
    const checks = await readChecks(join(folder, entry, 'checks.json'));
    if (!checks) {
      report.unfinished.push(scenario);
      continue;
    }
    const findings = (wanted: Check['status']) =>
      checks
        .filter(({ status }) => status === wanted)
        .map(({ id, errorMessage }) => ({ scenario, check: id, message: errorMessage ?? '' }));
    report.scenarios.push(scenario);
    report.passed += findings('SUCCESS').length;
    report.failures.push(...findings('FAILURE'));
    report.warnings.push(...findings('WARNING'));
  }
  return { ...report, failed: report.failures.length };
}

/** undefined: the suite made the folder when the scenario started, and the file that comes at its end is missing. */
async function readChecks(path: string): Promise<Check[] | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Check[];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

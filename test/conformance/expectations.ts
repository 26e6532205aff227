import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';
import { CHILDREN, type ChildName } from './endpoint.ts';
import { type Finding, SUITES, type SuiteName, type SuiteReport } from './suite.ts';

const entry = z.strictObject({
  scenario: z.string().min(1),
  check: z.string().min(1).describe('Id of a check, or * for every check of the scenario that fails.'),
  reason: z.string().trim().min(1),
});

const expectation = z.strictObject({
  passed: z.int().min(1),
  failed: z.int().min(0),
  failures: z.array(entry),
});

const fileSchema = z.strictObject(mapOf(SUITES, () => z.strictObject(mapOf(CHILDREN, () => expectation))));

export type Expectation = z.infer<typeof expectation>;

/** How a report differs from what is expected; all empty and equal when it does not. */
export interface Difference {
  /** Failures that no entry allows. */
  unexpected: Finding[];
  /** Entries that nothing failed for: they have to go. */
  stale: string[];
}

const FILE = new URL('expected-failures.yaml', import.meta.url);

/** Reads the expected results. @throws Error naming the entry that is incomplete */
export function loadExpectations(
  text = readFileSync(FILE, 'utf8'),
): Record<SuiteName, Record<ChildName, Expectation>> {
  const file = fileSchema.safeParse(parse(text));
  if (!file.success) throw new Error(`expected-failures.yaml:\n${z.prettifyError(file.error)}`);
  return file.data;
}

export function compare(report: Pick<SuiteReport, 'failures'>, { failures }: Expectation): Difference {
  const allows = (allowed: z.infer<typeof entry>, { scenario, check }: Finding) =>
    allowed.scenario === scenario && (allowed.check === '*' || allowed.check === check);
  return {
    unexpected: report.failures.filter(failure => !failures.some(allowed => allows(allowed, failure))),
    stale: failures
      .filter(allowed => !report.failures.some(failure => allows(allowed, failure)))
      .map(({ scenario, check }) => `${scenario} ${check}`),
  };
}

function mapOf<K extends string, V>(keys: readonly K[], value: (key: K) => V): Record<K, V> {
  return Object.fromEntries(keys.map(key => [key, value(key)])) as Record<K, V>;
}

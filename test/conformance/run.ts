import { parseArgs } from 'node:util';
import { CHILDREN, ISOLATIONS, startGateway, startWorkerProcess } from './endpoint.ts';
import { type Finding, runSuite, SUITES, type SuiteName, type SuiteReport } from './suite.ts';

const USAGE = `usage: node test/conformance/run.ts [option …]
  --child      ${CHILDREN.join(' | ')}
  --suite      ${SUITES.join(' | ')}
  --isolation  ${ISOLATIONS.join(' | ')} (default: shared)
  --gateway    through the whole mesh instead of one worker
  --url        an endpoint that already runs, instead of --child
  --scenario   only this one
  --verbose    print what the suite and the worker printed
`;

const { values } = parseArgs({
  options: {
    child: { type: 'string', default: 'modern' },
    suite: { type: 'string', default: '2026-07-28' },
    isolation: { type: 'string', default: 'shared' },
    gateway: { type: 'boolean', default: false },
    url: { type: 'string' },
    scenario: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});
const suite = oneOf(SUITES, values.suite);
const hosted = { child: oneOf(CHILDREN, values.child), isolation: oneOf(ISOLATIONS, values.isolation) };

const start = () => (values.gateway ? startGateway([hosted]) : startWorkerProcess(hosted));
const endpoint = values.url === undefined ? await start() : undefined;
try {
  const report = await runSuite(suite, endpoint?.url(hosted) ?? values.url ?? '', values.scenario);
  if (values.verbose) console.log(report.output, endpoint?.output());
  print(suite, report);
} finally {
  await endpoint?.stop();
}

function print(name: SuiteName, report: SuiteReport): void {
  const { passed, failed, scenarios, unfinished, failures, warnings } = report;
  for (const finding of failures) console.log(row('FAIL', finding));
  for (const finding of warnings) console.log(row('warn', finding));
  for (const scenario of unfinished) console.log(`FAIL  ${scenario}  broke off; --verbose shows why`);
  const clean = scenarios.filter(scenario => !failures.some(failure => failure.scenario === scenario));
  const counts = `${passed} passed, ${failed} failed, ${warnings.length} warnings`;
  console.log(
    `${name}: ${counts}; ${clean.length} of ${scenarios.length + unfinished.length} scenarios without a failure`,
  );
  process.exitCode = failed + unfinished.length > 0 ? 1 : 0;
}

function row(status: string, { scenario, check, message }: Finding): string {
  return `${status}  ${scenario}  ${check}\n      ${message.replaceAll(/\s+/g, ' ').slice(0, 300)}`;
}

function oneOf<T extends string>(allowed: readonly T[], value: string): T {
  const found = allowed.find(candidate => candidate === value);
  if (found !== undefined) return found;
  process.stderr.write(`${value}: none of ${allowed.join(', ')}\n\n${USAGE}`);
  process.exit(2);
}

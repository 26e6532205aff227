import assert from 'node:assert/strict';
import { after, before, describe, type TestContext, test } from 'node:test';
import { type Endpoint, type Hosted, startGateway, startWorkerProcess } from './endpoint.ts';
import { compare, loadExpectations } from './expectations.ts';
import { runSuite, type SuiteName } from './suite.ts';

interface Case extends Hosted {
  suite: SuiteName;
}

/** A legacy server cannot say for which session it asks something: where sessions exist, each has its own server. */
const CASES: Case[] = [
  { suite: '0.1', child: 'legacy', isolation: 'session' },
  { suite: '0.1', child: 'modern', isolation: 'shared' },
  { suite: '2025-11-25', child: 'legacy', isolation: 'session' },
  { suite: '2025-11-25', child: 'modern', isolation: 'shared' },
  { suite: '2026-07-28', child: 'legacy', isolation: 'session' },
  { suite: '2026-07-28', child: 'modern', isolation: 'shared' },
];

const expectations = loadExpectations();

describe('the official conformance suite on one worker', () => {
  for (const one of CASES) {
    test(titleOf(one), async t => {
      const worker = await startWorkerProcess(one);
      t.after(worker.stop);
      await check(t, one, worker);
    });
  }
});

describe('the official conformance suite through the gateway', () => {
  let mesh: Endpoint | undefined;
  before(async () => {
    const services = CASES.filter((one, i) => CASES.findIndex(other => sameService(one, other)) === i);
    mesh = await startGateway(services);
  });
  after(() => mesh?.stop());
  for (const one of CASES) {
    test(titleOf(one), async t => {
      assert.ok(mesh);
      await check(t, one, mesh);
    });
  }
});

async function check(t: TestContext, one: Case, endpoint: Endpoint): Promise<void> {
  const expected = expectations[one.suite][one.child];
  const report = await runSuite(one.suite, endpoint.url(one));
  for (const { scenario, check: id, message } of report.warnings)
    t.diagnostic(`${scenario} ${id}: ${message}`);
  const { passed, failed, unfinished } = report;
  assert.deepEqual(
    { ...compare(report, expected), unfinished, passed, failed },
    { unexpected: [], stale: [], unfinished: [], passed: expected.passed, failed: expected.failed },
  );
}

function titleOf({ suite, child, isolation }: Case): string {
  return `${suite}, ${child} server, ${isolation}`;
}

function sameService(one: Hosted, other: Hosted): boolean {
  return one.child === other.child && one.isolation === other.isolation;
}

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { createPolicy, type Policy } from '../../kong-plugin/policy.ts';
import { until } from '../until.ts';

const GOOD = 'version: 1\nroles: { user: { allow: [{ service: "*" }] } }\n';
const BROKEN = 'version: 1\nrolls: {}\n';
const FAULT = /access\.yaml:2: rolls: .*did you mean "roles"/;

describe('the access policy', { concurrency: true }, () => {
  test('is none without a path, which is said once', t => {
    const { policy, warnings, refusals } = start(t, undefined);
    assert.deepEqual([policy(), policy.isRefused(), refusals()], [undefined, false, 0]);
    assert.match(warnings.join(), /MESH_ACCESS_POLICY is not set/);
  });

  test('that cannot be used at the start lets nobody in until it can; what is wrong is told and counted once', async t => {
    const { policy, warnings, refusals, write } = start(t, BROKEN);
    assert.deepEqual([policy(), policy.isRefused()], [undefined, true]);
    // Two more looks at it, at least.
    await new Promise(resolve => setTimeout(resolve, 2200));
    assert.deepEqual([warnings.length, refusals()], [1, 1]);
    assert.match(warnings[0] ?? '', FAULT);
    assert.match(warnings[0] ?? '', /nobody is let in/);
    write(GOOD);
    await until('policy', () => policy());
    assert.equal(policy.isRefused(), false);
  });

  test('that is not there at the start is taken up when it is', async t => {
    const { policy, warnings, write } = start(t, null);
    assert.equal(policy(), undefined);
    assert.match(warnings[0] ?? '', /access\.yaml/);
    write(GOOD);
    await until('policy', () => policy());
  });

  test('stays in force when its file breaks; each time it breaks is told and counted', async t => {
    const { policy, warnings, refusals, write } = start(t, GOOD);
    const before = policy();
    for (const time of [1, 2]) {
      write(BROKEN);
      await until('refusal', () => policy.isRefused());
      assert.deepEqual([policy(), refusals(), warnings.length], [before, time, time]);
      assert.match(warnings.at(-1) ?? '', FAULT);
      assert.match(warnings.at(-1) ?? '', /the policy from before stays in force/);
      write(GOOD);
      await until('end of the refusal', () => !policy.isRefused());
    }
    write(`${GOOD}anonymous: user\n`);
    await until('next policy', () => policy()?.anonymous === 'user');
  });

  test('has warnings of its own: a key that has expired', async t => {
    const key = `{ id: old, hash: "sha256:${'0'.repeat(64)}", roles: [user], expires: 2020-01-01 }`;
    const { warnings, write } = start(t, `${GOOD}api_keys: [${key}]\n`);
    assert.match(warnings.join(), /old/);
    write(`${GOOD}api_keys: [${key.replace('old', 'older')}]\n`);
    await until('warning', () => warnings.some(text => text.includes('older')));
  });
});

interface Started {
  policy: Policy;
  warnings: string[];
  refusals(): number;
  write(text: string): void;
}

/** @param text of the file; null: there is none; undefined: nor a path to one */
function start(t: TestContext, text: string | null | undefined): Started {
  const folder = mkdtempSync(join(tmpdir(), 'policy-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'access.yaml');
  const write = (changed: string) => writeFileSync(path, changed);
  if (typeof text === 'string') write(text);
  const warnings: string[] = [];
  let refused = 0;
  const policy = createPolicy({
    path: text === undefined ? undefined : path,
    warn: warning => warnings.push(warning),
    onRefused: () => {
      refused += 1;
    },
  });
  return { policy, warnings, refusals: () => refused, write };
}

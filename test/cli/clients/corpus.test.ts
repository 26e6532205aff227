import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';
import { mergeRegistry } from '../../../cli/import/merge-registry.ts';
import type { ImportPlan } from '../../../cli/import/plan.ts';
import { printPlan } from '../../../cli/import/print-plan.ts';
import { parseRegistry } from '../../../mesh/registry.ts';
import { type Case, corpus, planOf, summaryOf } from './corpus.ts';

const CASES = corpus();

function merge(plan: ImportPlan, text?: string): string {
  const changes = plan.services.flatMap(({ action, entry }) =>
    entry && (action === 'add' || action === 'replace') ? [{ kind: action, entry }] : [],
  );
  return mergeRegistry(text, changes, 'r.yaml');
}

/** Every case that can be read, with the registry that it makes. */
function readable(): {
  one: Case;
  plan: ImportPlan;
  secrets: ReadonlyMap<string, string>;
  registry: string;
}[] {
  return CASES.filter(one => one.expected.error === undefined).map(one => {
    const { plan, secrets } = planOf(one.path);
    return { one, plan, secrets, registry: merge(plan) };
  });
}

describe('client configurations', () => {
  test('are at least 25', () => {
    assert.ok(CASES.length >= 25, String(CASES.length));
  });

  for (const { name, path, expected } of CASES) {
    if (expected.error !== undefined) {
      test(`${name} is refused with its place and what would be right`, () => {
        assert.throws(() => planOf(path), { name: 'ClientFileError', message: expected.error });
      });
      continue;
    }
    test(`${name} gives its plan`, () => {
      const { format, sure, plan, secrets } = planOf(path);
      const { client, sure: isSure, secrets: values = {}, ...rest } = expected;
      assert.deepEqual([format.id, sure], [client, isSure]);
      assert.deepEqual(summaryOf(plan), rest);
      assert.deepEqual(Object.fromEntries(secrets), values);
    });
  }

  test('make registries that load, with what the client would have started', () => {
    for (const { plan, secrets, registry } of readable()) {
      if (registry === '') continue;
      const others = plan.variables.map(({ name }) => [name, secrets.get(name) ?? `<${name}>`]);
      const { services } = parseRegistry(registry, plan.file, { env: Object.fromEntries(others) });
      const added = plan.services.filter(({ action }) => action === 'add');
      assert.deepEqual(
        services.map(({ name, service_name }) => [name, service_name]),
        added.map(({ name, consul }) => [name, consul]),
      );
    }
  });

  test('leave no secret in the plan, in what is printed or in the registry', () => {
    for (const { one, plan, secrets, registry } of readable()) {
      const shown = [JSON.stringify(plan), printPlan(plan, 'x'), registry].join('\n');
      const values = [...secrets.values()].filter(value => value.length > 6);
      assert.deepEqual(
        values.filter(value => shown.includes(value) || shown.includes(JSON.stringify(value).slice(1, -1))),
        [],
        one.name,
      );
      assert.ok(!shown.includes('hunter2hunter2') && !shown.includes('verysecretpath'), one.name);
    }
  });

  test('are there already when they are imported again', () => {
    for (const { one, plan, registry } of readable()) {
      if (registry === '') continue;
      const again = planOf(one.path, { registry }).plan;
      const expected = plan.services.map(({ action }) => (action === 'add' ? 'same' : action));
      assert.deepEqual(
        again.services.map(({ action }) => action),
        expected,
        one.name,
      );
      assert.equal(merge(again, registry), registry, one.name);
    }
  });

  test('read a file of variables only where there is one', () => {
    const envFiles = CASES.filter(({ folder }) => existsSync(`${folder}/.env`)).map(({ name }) => name);
    assert.deepEqual(envFiles, ['cursor-envfile']);
  });
});

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse, stringify } from 'yaml';
import { ERROR_CODES, MeshError } from '../../mesh/errors.ts';
import { promtool, skipWithoutPrometheus } from '../real-prometheus.ts';
import { compress, FOLDER, readRules, ruleFiles, testFiles } from './prometheus-config.ts';

const skip = skipWithoutPrometheus();
const alerts = readRules().filter(rule => rule.alert !== undefined);

describe('promtool', { skip }, () => {
  test('takes the configuration and the rules', async t => {
    const folder = mkdtempSync(join(tmpdir(), 'rules-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const config = parse(readFileSync(join(FOLDER, 'prometheus.yml'), 'utf8'));
    config.rule_files = ruleFiles();
    const path = join(folder, 'prometheus.yml');
    writeFileSync(path, stringify(config));
    const { ok, output } = await promtool('check', 'config', path);
    assert.ok(ok, output);
    assert.match(output, /14 rules found/);
  });

  test('finds that each alert fires, and is silent just below', async () => {
    const { ok, output } = await promtool('test', 'rules', ...testFiles());
    assert.ok(ok, output);
  });

  test('takes the rules that are compressed in time, too', async t => {
    const folder = mkdtempSync(join(tmpdir(), 'rules-'));
    t.after(() => rmSync(folder, { recursive: true }));
    for (const [i, path] of ruleFiles().entries()) {
      const compressed = join(folder, `${i}.yml`);
      writeFileSync(compressed, compress(readFileSync(path, 'utf8'), 20));
      const { ok, output } = await promtool('check', 'rules', compressed);
      assert.ok(ok, output);
    }
  });
});

test('each alert has unit tests for both: that it fires, and that it does not', () => {
  const cases = testFiles().flatMap(path => {
    const { tests } = parse(readFileSync(path, 'utf8'));
    return tests.flatMap((unit: { alert_rule_test: unknown[] }) => unit.alert_rule_test) as {
      alertname: string;
      exp_alerts: unknown[];
    }[];
  });
  for (const { alert } of alerts) {
    const own = cases.filter(({ alertname }) => alertname === alert);
    assert.ok(
      own.some(({ exp_alerts }) => exp_alerts.length > 0),
      `no test in which ${alert} fires`,
    );
    assert.ok(
      own.some(({ exp_alerts }) => exp_alerts.length === 0),
      `no test in which ${alert} is silent`,
    );
  }
});

test('each alert has its section in the runbook, and each section its alert', () => {
  const text = readFileSync(join(FOLDER, 'RUNBOOK.md'), 'utf8');
  const [, ...sections] = text.split(/^## /m);
  const names = sections.map(section => section.split('\n', 1)[0]);
  assert.deepEqual(names, [...new Set(names)]);
  assert.deepEqual(names.toSorted(), alerts.map(({ alert }) => alert).toSorted());
  for (const section of sections)
    for (const part of ['Means', 'Look', 'Do'])
      assert.ok(section.includes(`**${part}.**`), `${section.split('\n', 1)[0]} lacks ${part}`);
});

test('each alert says what it is, and where to read on', () => {
  for (const { alert, annotations, labels } of alerts) {
    assert.match(labels?.severity ?? '', /^(page|ticket)$/, alert);
    assert.ok(annotations?.summary && annotations.description, alert);
    assert.equal(annotations?.runbook_url, `config/prometheus/RUNBOOK.md#${alert?.toLowerCase()}`);
  }
});

test('what counts as a fault is what the catalogue of errors gives 500 or more', () => {
  const faults = ERROR_CODES.filter(code => new MeshError(code).status >= 500);
  const rule = readRules().find(({ record }) => record === 'service:mcp_mesh_worker_requests:error_ratio5m');
  const [, listed = ''] = /outcome=~"([^"]+)"/.exec(rule?.expr ?? '') ?? [];
  assert.deepEqual(listed.split('|').toSorted(), faults.toSorted(), 'put them into recording.yml');
});

test('compressing changes windows, waits and intervals alone', () => {
  const text = 'a:\n  interval: 15s\n  expr: rate(x:rate5m[5m]) > 60\n  for: 1m\n';
  assert.equal(
    compress(text, 20),
    'a:\n  interval: 750ms\n  expr: rate(x:rate5m[15000ms]) > 60\n  for: 3000ms\n',
  );
});

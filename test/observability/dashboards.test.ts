import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DASHBOARDS, dashboardText } from '../../cli/dashboards.ts';
import { METRICS_FILE, metricRows, metricsDocument } from './metrics-table.ts';
import { ROOT, readRules } from './prometheus-config.ts';

const FOLDER = join(ROOT, 'config/grafana/dashboards');
const panels = Object.values(DASHBOARDS).flatMap(({ panels }) => panels);
const queries = panels.flatMap(panel => panel.queries.map(({ expr }) => expr));
const rules = readRules();

test('the dashboards are what their source says: `node cli/dashboards.ts`', () => {
  assert.deepEqual(
    readdirSync(FOLDER).toSorted(),
    Object.keys(DASHBOARDS)
      .map(name => `${name}.json`)
      .toSorted(),
  );
  for (const [name, dashboard] of Object.entries(DASHBOARDS)) {
    const text = readFileSync(join(FOLDER, `${name}.json`), 'utf8');
    assert.equal(text, dashboardText(dashboard), name);
    JSON.parse(text);
  }
});

test('the table of metrics is what the code says: `node test/observability/metrics-table.ts`', async () => {
  assert.equal(readFileSync(METRICS_FILE, 'utf8'), await metricsDocument());
});

test('dashboards and rules ask for metrics and rules that there are', async () => {
  const rows = await metricRows();
  const histograms = rows.filter(({ type }) => type === 'histogram').map(({ name }) => name);
  const known = new Set([
    ...rows.map(({ name }) => name),
    ...histograms.flatMap(name => ['bucket', 'sum', 'count'].map(part => `${name}_${part}`)),
    ...rules.map(({ record }) => record),
  ]);
  for (const expr of [...queries, ...rules.map(rule => rule.expr)]) {
    for (const [name] of expr.matchAll(/(?:\w+:)?mcp_mesh_\w+(?::\w+)?/g))
      assert.ok(known.has(name), `${name}, in ${expr}`);
  }
});

test('each metric of our own is asked for by a panel or a rule', async () => {
  const asked = [...queries, ...rules.map(({ expr }) => expr)].join('\n');
  const own = (await metricRows()).filter(({ name }) => !/_(nodejs|process)_/.test(name));
  const unused = own
    .map(({ name }) => name)
    .filter(name => !new RegExp(`\\b${name}(_bucket|_count|_sum)?\\b`).test(asked));
  assert.deepEqual(unused.toSorted(), [
    // The same by service, which panels show: mcp_mesh_gateway_instances.
    'mcp_mesh_catalogue_instances',
    // As it happens, for an ad-hoc question: policy_refused says whether it still is so.
    'mcp_mesh_gateway_policy_refusals_total',
  ]);
});

test('no label can be as many as callers, sessions or calls', async () => {
  const labels = new Set((await metricRows()).flatMap(row => row.labels));
  for (const label of ['principal', 'key', 'session', 'call_id', 'client_ip', 'path'])
    assert.ok(!labels.has(label), label);
});

test('each dashboard can be read: queries have legends where there are several series, titles are unique', () => {
  for (const { uid, panels } of Object.values(DASHBOARDS)) {
    assert.equal(new Set(panels.map(({ title }) => title)).size, panels.length, uid);
    for (const { title, kind, queries } of panels) {
      if (kind === 'timeseries') for (const { legend } of queries) assert.ok(legend, `${uid}: ${title}`);
    }
  }
});

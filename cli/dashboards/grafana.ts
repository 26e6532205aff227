import type { Dashboard, Panel, Variable } from './panel.ts';

const WIDTH = 24;
const HEIGHTS: Record<Panel['kind'], number> = {
  timeseries: 8,
  stat: 4,
  table: 9,
  bargauge: 8,
  'state-timeline': 8,
};
/** Of the dashboard model of Grafana 10; newer ones read it, too. */
const SCHEMA_VERSION = 39;
const DATA_SOURCE = { type: 'prometheus', uid: '$datasource' };
const EMPTY = 'Empty while all is well.';
/** As wide as our other files, so that the formatter leaves it as it is. */
const LINE_WIDTH = 110;

/** Grafana's JSON model of a dashboard. */
export function toGrafana({ uid, title, description, variables, panels }: Dashboard): object {
  return {
    uid,
    title,
    description,
    tags: ['mcp-mesh'],
    schemaVersion: SCHEMA_VERSION,
    editable: true,
    graphTooltip: 1,
    refresh: '30s',
    time: { from: 'now-1h', to: 'now' },
    links: [
      {
        type: 'dashboards',
        tags: ['mcp-mesh'],
        title: 'MCP mesh',
        asDropdown: true,
        keepTime: true,
        includeVars: true,
      },
    ],
    templating: {
      list: [
        { name: 'datasource', label: 'data source', type: 'datasource', query: 'prometheus' },
        ...variables.map(toVariable),
      ],
    },
    panels: placed(panels),
  };
}

/** JSON with everything on one line that fits on one. */
export function compactJson(value: unknown, indent = 0, before = 0): string {
  const short = onOneLine(value);
  const isOpen = typeof value === 'object' && value !== null;
  // One more for the comma that may follow.
  if (!isOpen || indent + before + short.length + 1 <= LINE_WIDTH) return short;
  const pad = ' '.repeat(indent + 2);
  const inner = Array.isArray(value)
    ? value.map(item => pad + compactJson(item, indent + 2))
    : Object.entries(value).map(([key, item]) => {
        const name = `${JSON.stringify(key)}: `;
        return pad + name + compactJson(item, indent + 2, name.length);
      });
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  return `${open}\n${inner.join(',\n')}\n${' '.repeat(indent)}${close}`;
}

function onOneLine(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(onOneLine).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${onOneLine(item)}`);
  return members.length === 0 ? '{}' : `{ ${members.join(', ')} }`;
}

function toVariable({ name, query }: Variable): object {
  return {
    name,
    type: 'query',
    datasource: DATA_SOURCE,
    query: { query, refId: name },
    refresh: 2,
    sort: 1,
    multi: true,
    includeAll: true,
    allValue: '.*',
    current: { text: 'All', value: '$__all' },
  };
}

/** From left to right, as many in a row as fit; rows are as high as their highest panel. */
function placed(panels: Panel[]): object[] {
  let [x, y, rowHeight] = [0, 0, 0];
  return panels.map((panel, i) => {
    const { width: w } = panel;
    const h = HEIGHTS[panel.kind];
    if (x + w > WIDTH) [x, y, rowHeight] = [0, y + rowHeight, 0];
    const gridPos = { h, w, x, y };
    x += w;
    rowHeight = Math.max(rowHeight, h);
    return toPanel(panel, i + 1, gridPos);
  });
}

function toPanel(panel: Panel, id: number, gridPos: object): object {
  const { kind, title, queries } = panel;
  const isTable = kind === 'table';
  const isNow = isTable || kind === 'stat' || kind === 'bargauge';
  const description = [panel.description, panel.emptyWhenHealthy && EMPTY].filter(Boolean).join(' ');
  return {
    id,
    type: kind,
    title,
    ...(description === '' ? {} : { description }),
    gridPos,
    datasource: DATA_SOURCE,
    targets: queries.map(({ expr, legend }, i) => ({
      refId: String.fromCharCode(65 + i),
      expr,
      ...(legend === undefined ? {} : { legendFormat: legend }),
      ...(isNow ? { instant: true, range: false } : {}),
      ...(isTable ? { format: 'table' } : {}),
    })),
    fieldConfig: { defaults: defaultsOf(panel), overrides: [] },
    ...optionsOf(kind),
  };
}

function defaultsOf({ kind, unit, thresholds, words }: Panel): object {
  const [yellow, red] = thresholds ?? [];
  const steps = [
    { color: 'green', value: null },
    { color: 'yellow', value: yellow },
    { color: 'red', value: red },
  ];
  return {
    ...(unit === undefined ? {} : { unit }),
    ...(kind === 'timeseries' ? { min: 0 } : {}),
    ...(thresholds ? { color: { mode: 'thresholds' }, thresholds: { mode: 'absolute', steps } } : {}),
    ...(words ? { mappings: [{ type: 'value', options: words }] } : {}),
  };
}

function optionsOf(kind: Panel['kind']): object {
  const reduceOptions = { calcs: ['lastNotNull'], fields: '', values: false };
  switch (kind) {
    case 'timeseries':
      return {
        options: {
          legend: { displayMode: 'list', placement: 'bottom' },
          tooltip: { mode: 'multi', sort: 'desc' },
        },
      };
    case 'stat':
      return { options: { reduceOptions, colorMode: 'value', graphMode: 'none' } };
    case 'bargauge':
      return { options: { reduceOptions, orientation: 'horizontal', displayMode: 'basic' } };
    case 'table':
      return {
        options: { showHeader: true },
        transformations: [
          { id: 'merge', options: {} },
          { id: 'organize', options: { excludeByName: { Time: true } } },
        ],
      };
    case 'state-timeline':
      return { options: { showValue: 'auto', mergeValues: true } };
  }
}

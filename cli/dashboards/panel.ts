/** A panel as the dashboards' source has it; `toGrafana` makes Grafana's JSON of it. */
export interface Panel {
  title: string;
  /** What a reader is to make of it. */
  description?: string;
  kind: 'timeseries' | 'stat' | 'table' | 'bargauge' | 'state-timeline';
  /** Grafana's id of it: `s`, `percentunit`, `bytes`, `reqps`, … */
  unit?: string;
  /** Of 24. */
  width: number;
  queries: Query[];
  /** From which value on it is yellow, and red. */
  thresholds?: readonly [yellow: number, red: number];
  /** Values in words. */
  words?: Readonly<Record<string, { text: string; color: string }>>;
  /** Its series only come into being with the first fault or refusal. */
  emptyWhenHealthy?: true;
}

export interface Query {
  expr: string;
  /** Grafana's template for the name of a series: `{{instance}}`. */
  legend?: string;
}

export interface Dashboard {
  uid: string;
  title: string;
  description: string;
  variables: Variable[];
  panels: Panel[];
}

/** A choice at the top of the page, of the values of a label; several or all can be chosen. */
export interface Variable {
  name: string;
  /** As Grafana asks for them: `label_values(<metric>, <label>)`. */
  query: string;
}

export const SERVICE: Variable = {
  name: 'service',
  query: 'label_values(mcp_mesh_gateway_instances, service)',
};
export const INSTANCE: Variable = {
  name: 'instance',
  query: 'label_values(mcp_mesh_worker_child_up{service=~"$service"}, instance)',
};

type Options = Omit<Panel, 'title' | 'kind' | 'queries' | 'width'> & { width?: number };

/** Lines over time, one query for each. */
export function lines(title: string, queries: Query[], options: Options = {}): Panel {
  return { title, kind: 'timeseries', width: 8, queries, ...options };
}

/** One number. */
export function stat(title: string, expr: string, options: Options = {}): Panel {
  return { title, kind: 'stat', width: 4, queries: [{ expr }], ...options };
}

/** The largest ones, as bars. */
export function bars(title: string, query: Query, options: Options = {}): Panel {
  return { title, kind: 'bargauge', width: 8, queries: [query], ...options };
}

/** One row for each set of labels, one column for each label and query. */
export function table(title: string, exprs: string[], options: Options = {}): Panel {
  return { title, kind: 'table', width: 24, queries: exprs.map(expr => ({ expr })), ...options };
}

/** How states changed over time, one band for each series. */
export function bands(title: string, query: Query, words: Panel['words'], options: Options = {}): Panel {
  return {
    title,
    kind: 'state-timeline',
    width: 12,
    queries: [query],
    ...(words ? { words } : {}),
    ...options,
  };
}

/** One number of a benchmark against its bar. */
export interface Measured {
  /** What was measured, with the counts of this run. */
  what: string;
  /** Ratio, or share, where it is not said to be something else. */
  value: number;
  /** What it may be at most; with `least`, at least. */
  bar: number;
  least?: boolean;
}

/** Figures without a bar. */
export interface Table {
  title: string;
  columns: readonly string[];
  rows: readonly (readonly (string | number)[])[];
}

/** What a benchmark tells run.ts over the channel of its process, when that has started it. */
export type Result =
  | { type: 'number'; number: Measured & { holds: boolean } }
  | { type: 'table'; table: Table };

/** Whether a quick look is wanted, and no figures to keep: `--quick`, of run.ts or of one script. */
export const isQuick = process.env.BENCH_QUICK === 'true' || process.argv.includes('--quick');

/** Tells a number; one beyond its bar makes the process end with 1. */
export function report(measured: Measured): void {
  const { value, bar, least = false } = measured;
  const holds = least ? value >= bar : value <= bar;
  if (!holds) process.exitCode = 1;
  tell({ type: 'number', number: { ...measured, holds } });
}

export function reportTable(table: Table): void {
  tell({ type: 'table', table });
}

/** The rows of a Markdown table. */
export function toMarkdown(result: Result): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.map(format).join(' | ')} |`;
  if (result.type === 'number') {
    const { what, value, bar, least, holds } = result.number;
    return line([what, value, `${least ? '≥' : '≤'} ${format(bar)}`, holds ? 'holds' : '**misses**']);
  }
  const { title, columns, rows } = result.table;
  const rule = columns.map((_, i) => (i === 0 ? '---' : '---:'));
  return [`**${title}**`, '', line(columns), `|${rule.join('|')}|`, ...rows.map(line)].join('\n');
}

/** The value below which a share of the values lies (nearest rank). */
export function percentile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new Error('no values to take a percentile of');
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

function tell(result: Result): void {
  if (process.send) process.send(result);
  else console.log(toMarkdown(result));
}

/** Three digits; thousands whole. */
export function format(value: string | number): string {
  if (typeof value === 'string') return value;
  return String(Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(3)));
}

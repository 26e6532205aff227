/** One number of a benchmark against its bar. */
export interface Measured {
  /** What was measured, with the counts of this run. */
  what: string;
  /** Ratio, or share. */
  value: number;
  /** What it may be at most. */
  bar: number;
}

/**
 * Prints a number as a row of a Markdown table, which run.ts collects; one beyond its bar makes the process end
 * with 1.
 */
export function report({ what, value, bar }: Measured): void {
  const holds = value <= bar;
  if (!holds) process.exitCode = 1;
  console.log(`| ${what} | ${format(value)} | ≤ ${format(bar)} | ${holds ? 'holds' : '**misses**'} |`);
}

/** The value below which a share of the values lies (nearest rank). */
export function percentile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new Error('no values to take a percentile of');
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

function format(value: number): string {
  return String(Number(value.toPrecision(3)));
}

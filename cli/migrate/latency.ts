import type { ProbeResult } from './probes.ts';
import type { Side } from './side.ts';

/** What the way through the mesh costs, measured side by side. */
export interface Latency {
  /** What was asked for. */
  what: string;
  /** So often each way. */
  calls: number;
  /** Median in ms. */
  oldMs: number;
  newMs: number;
}

/** Asks both ways in turn, so that whatever else the machine does meets both. @throws MeshError */
export async function measure(
  { old, next }: { old: Side; next: Side },
  probe: ProbeResult | undefined,
  calls: number,
): Promise<Latency> {
  const quick = old.info.era === 'modern' ? 'server/discover' : 'ping';
  const method = probe ? 'tools/call' : quick;
  const params = probe ? { name: probe.tool, arguments: probe.args } : {};
  const times: Record<'old' | 'next', number[]> = { old: [], next: [] };
  for (let i = 0; i < calls; i += 1) {
    for (const way of ['old', 'next'] as const) {
      const began = performance.now();
      await (way === 'old' ? old : next).ask(method, params);
      times[way].push(performance.now() - began);
    }
  }
  return { what: probe?.tool ?? method, calls, oldMs: median(times.old), newMs: median(times.next) };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

import { plain } from '../table.ts';
import type { Difference } from './differences.ts';
import type { Parity } from './parity.ts';

const SHOWN_LENGTH = 100;
const PER_KIND = 20;

/** For people. */
export function printParity({ old, new: next, differences, notes, probes, latency }: Parity): string {
  const counts = Object.entries(old.counts).map(([name, count]) => {
    const other = next.counts[name as keyof typeof next.counts];
    return `${count === other ? count : `${count} → ${other}`} ${name}`;
  });
  const volatile = probes.filter(probe => probe.volatile.length > 0);
  const { what, calls, oldMs, newMs } = latency;
  const lines = [
    `old way   ${old.where}: ${old.server}, ${old.era}`,
    `new way   ${next.where}: ${next.server}`,
    `compared  server info, capabilities, ${counts.join(', ')}, the answers of ${answers(probes.length)}`,
    ...byKind(differences),
    ...notes.map(note => `note      ${note}`),
    ...volatile.map(
      ({ tool, volatile: paths }) =>
        `volatile  ${tool}: two runs of the old way differ at ${paths.join(', ')}: not compared there`,
    ),
    `latency   ${what}, ${calls} calls each way: p50 ${ms(oldMs)} → ${ms(newMs)} (${newMs < oldMs ? '-' : '+'}${ms(Math.abs(newMs - oldMs))})`,
    total(differences.length),
  ];
  return `${lines.map(plain).join('\n')}\n`;
}

function total(count: number): string {
  if (count === 0) return 'no differences';
  return count === 1 ? '1 difference' : `${count} differences`;
}

function answers(count: number): string {
  if (count === 0) return 'no tool (--probe names one)';
  return count === 1 ? '1 tool' : `${count} tools`;
}

function byKind(differences: readonly Difference[]): string[] {
  const kinds = Map.groupBy(differences, ({ kind }) => kind);
  return [...kinds].flatMap(([kind, found]) => {
    const rest = found.length > PER_KIND ? [`    … and ${found.length - PER_KIND} more`] : [];
    return [`different ${kind}`, ...found.slice(0, PER_KIND).map(describe), ...rest];
  });
}

function describe({ kind, name, path, old, new: next }: Difference): string {
  const where = path === '' ? name : `${name} ${path}`;
  if (kind.endsWith('-missing')) return `    ${where}: only the old way has it`;
  if (kind.endsWith('-added')) return `    ${where}: only the new way has it`;
  return `    ${where}: ${shown(old)} → ${shown(next)}`;
}

function shown(value: unknown): string {
  const text = value === undefined ? '(nothing)' : JSON.stringify(value);
  return text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}…` : text;
}

function ms(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 0)} ms`;
}

import { stripVTControlCharacters } from 'node:util';

export interface Column<T> {
  title: string;
  cell(row: T): string;
  /** Numbers end at the same place. */
  right?: boolean;
  /** In a narrow terminal it gives way down to this width; without it, never. */
  least?: number;
  /** Where that is not enough, columns are left out, the lowest number first; without it, never. */
  spare?: number;
}

const GAP = '  ';
const CUT = '…';
/** Errors, ids and log lines come from servers and files: in a terminal they must not move the cursor. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const COMBINING = /^(?:\p{Mark}|[\u200b-\u200d])/u;
const WIDE =
  /^[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\u3000-\u303f\uff01-\uff60]/u;

/** One line of text with nothing in it that a terminal obeys. */
export function plain(text: string): string {
  return stripVTControlCharacters(text).replaceAll('\t', ' ').replace(UNSAFE, '?');
}

/**
 * Lines of a table, titles first, without colours and without spaces at the end. `width`: columns of the terminal, which
 * no line goes beyond; undefined: as wide as it takes. Of columns that give way, the last one does so first.
 */
export function formatTable<T>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  width = Number.POSITIVE_INFINITY,
): string[] {
  const shown = [...columns];
  for (const column of columns.filter(({ spare }) => spare !== undefined).toSorted(bySpare)) {
    if (leastWidth(rows, shown) <= width) break;
    shown.splice(shown.indexOf(column), 1);
  }
  return layOut(rows, shown, width);
}

function layOut<T>(rows: readonly T[], columns: readonly Column<T>[], width: number): string[] {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map(row => columns.map(({ cell }) => plain(cell(row)))),
  ];
  const widths = fit(
    columns.map((_, i) => Math.max(...cells.map(line => widthOf(line[i] ?? '')))),
    columns,
    width,
  );
  return cells.map(line => {
    const padded = line.map((text, i) => pad(text, widths[i] ?? 0, columns[i]?.right ?? false));
    return cutTo(padded.join(GAP).trimEnd(), width);
  });
}

/** At most so many columns of a terminal; what is cut ends with "…". */
export function cutTo(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let kept = '';
  let used = 0;
  for (const character of text) {
    used += widthOf(character);
    if (used > width - 1) break;
    kept += character;
  }
  return width < 1 ? '' : `${kept.trimEnd()}${CUT}`;
}

/** Columns of a terminal that a text takes: letters of East Asia and emoji take two, combining marks none. */
export function widthOf(text: string): number {
  let sum = 0;
  for (const character of text) sum += COMBINING.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
  return sum;
}

function bySpare(a: { spare?: number }, b: { spare?: number }): number {
  return (a.spare ?? 0) - (b.spare ?? 0);
}

/** Width of the table when every column has given way as far as it does. */
function leastWidth<T>(rows: readonly T[], columns: readonly Column<T>[]): number {
  const widths = columns.map(({ title, cell, least }) => {
    const wanted = Math.max(0, ...rows.map(row => widthOf(plain(cell(row)))));
    return Math.max(widthOf(title), Math.min(wanted, least ?? wanted));
  });
  return widths.reduce((sum, one) => sum + one, 0) + GAP.length * (widths.length - 1);
}

function fit<T>(wanted: number[], columns: readonly Column<T>[], width: number): number[] {
  const widths = [...wanted];
  let excess = widths.reduce((sum, one) => sum + one, 0) + GAP.length * (widths.length - 1) - width;
  for (let i = columns.length - 1; i >= 0 && excess > 0; i -= 1) {
    const own = widths[i] ?? 0;
    const least = Math.max(columns[i]?.least ?? own, widthOf(columns[i]?.title ?? ''));
    const given = Math.min(excess, Math.max(0, own - least));
    widths[i] = own - given;
    excess -= given;
  }
  return widths;
}

function pad(text: string, width: number, right: boolean): string {
  const shown = cutTo(text, width);
  const fill = ' '.repeat(width - widthOf(shown));
  return right ? fill + shown : shown + fill;
}

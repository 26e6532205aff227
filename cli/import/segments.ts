import type { ClientFormat } from '../clients/client-format.ts';

/** A text of a client's file in parts: what is plain, and what stands for a variable of the environment. */
export type Segment = TextSegment | VariableSegment;

export interface TextSegment {
  kind: 'text';
  text: string;
}

export interface VariableSegment {
  kind: 'env';
  name: string;
  fallback?: string | undefined;
  /** As the client writes it, between `${` and `}`. */
  source?: string;
  note?: string | undefined;
}

/** What the registry would take for a variable: it has no escape, but a default that nobody sets says the same. */
const LIKE_VARIABLE = /\$\{(?=[A-Za-z_][A-Za-z0-9_]*(?::-|\}))/g;
const DOLLAR = '$' + '{DOLLAR:-$}{';

/** Takes a text apart by its client's syntax of variables. */
export function parseSegments(text: string, variable: ClientFormat['variable']): Segment[] {
  const segments: Segment[] = [];
  let at = 0;
  for (;;) {
    const start = text.indexOf('${', at);
    const end = start < 0 ? -1 : text.indexOf('}', start);
    if (end < 0) break;
    const source = text.slice(start + 2, end);
    const found = variable(source);
    if (!found) {
      // What begins inside may be one.
      addText(segments, text.slice(at, start + 2));
      at = start + 2;
      continue;
    }
    addText(segments, text.slice(at, start));
    if (found.kind === 'text') addText(segments, found.text);
    else segments.push({ ...found, source });
    at = end + 1;
  }
  addText(segments, text.slice(at));
  return segments;
}

/** The same in the registry's syntax: `${NAME}`, `${NAME:-default}`, and plain text that nothing is filled into. */
export function toRegistryText(segments: readonly Segment[]): string {
  return segments
    .map(segment => {
      if (segment.kind === 'text') return segment.text.replace(LIKE_VARIABLE, () => DOLLAR);
      return `\${${segment.name}${segment.fallback === undefined ? '' : `:-${segment.fallback}`}}`;
    })
    .join('');
}

/** Whether the registry's text had to say that a `${…}` is none. */
export function needsEscape(segments: readonly Segment[]): boolean {
  return segments.some(segment => segment.kind === 'text' && segment.text.search(LIKE_VARIABLE) >= 0);
}

/** The plain text, when there is no variable in it. */
export function plainText(segments: readonly Segment[]): string | undefined {
  return segments.every(segment => segment.kind === 'text')
    ? segments.map(segment => (segment as TextSegment).text).join('')
    : undefined;
}

/** Plain parts that follow each other are one: so nothing that looks like a variable is cut in two. */
function addText(segments: Segment[], text: string): void {
  const last = segments.at(-1);
  if (last?.kind === 'text') last.text += text;
  else if (text !== '') segments.push({ kind: 'text', text });
}

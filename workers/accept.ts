/**
 * Whether an Accept header welcomes a media type (RFC 9110 §12.5.1; `q=0` refuses). No header welcomes JSON alone:
 * a client that does not say so is not expected to read a stream.
 */
export function accepts(header: string | undefined, type: 'application/json' | 'text/event-stream'): boolean {
  if (header === undefined) return type === 'application/json';
  const family = `${type.split('/', 1)[0]}/*`;
  return header.split(',').some(range => {
    const [name = '', ...parameters] = range.split(';').map(part => part.trim().toLowerCase());
    if (name !== type && name !== family && name !== '*/*') return false;
    return !parameters.some(parameter => /^q=0(\.0*)?$/.test(parameter));
  });
}

/** By weight (RFC 9110 §12.4.2); of equals, their order is the only hint of what a client would rather have. */
export function prefersStream(header = ''): boolean {
  const text = header.toLowerCase();
  const [streamWeight, jsonWeight] = [
    weightOf(text, 'text/event-stream'),
    weightOf(text, 'application/json'),
  ];
  if (streamWeight !== jsonWeight) return streamWeight > jsonWeight;
  const stream = text.indexOf('text/event-stream');
  const json = text.indexOf('application/json');
  return streamWeight > 0 && stream >= 0 && (json < 0 || stream < json);
}

/** Of the ranges that cover a media type the most specific one counts (RFC 9110 §12.5.1). */
function weightOf(header: string, type: string): number {
  const ranges = header.split(',').map(range => range.split(';').map(part => part.trim()));
  const names = [type, `${type.split('/', 1)[0]}/*`, '*/*'];
  const covering = names.flatMap(name => ranges.filter(([range]) => range === name));
  const [first] = covering;
  if (!first) return 0;
  const weight = Number(first.find(part => part.startsWith('q='))?.slice(2) ?? 1);
  return Number.isNaN(weight) ? 1 : weight;
}

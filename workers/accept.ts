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

/** Both are equally welcome then, so their order is the only hint of what a client would rather have. */
export function prefersStream(header = ''): boolean {
  const stream = header.indexOf('text/event-stream');
  const json = header.indexOf('application/json');
  return stream >= 0 && (json < 0 || stream < json);
}

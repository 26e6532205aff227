import { BoundedCache } from '../mesh/bounded-cache.ts';

/** What an Accept header says of the two media types of MCP. */
interface Welcome {
  json: boolean;
  stream: boolean;
  /** It would rather have the stream. */
  streamFirst: boolean;
}

/** Clients send few different ones, with each request. */
const known = new BoundedCache<string, Welcome>(100);
/** A client that does not say so is not expected to read a stream. */
const UNSAID: Welcome = { json: true, stream: false, streamFirst: false };

/** Whether an Accept header welcomes a media type (RFC 9110 §12.5.1; `q=0` refuses). No header welcomes JSON alone. */
export function accepts(header: string | undefined, type: 'application/json' | 'text/event-stream'): boolean {
  const { json, stream } = read(header);
  return type === 'application/json' ? json : stream;
}

/** By weight (RFC 9110 §12.4.2); of equals, their order is the only hint of what a client would rather have. */
export function prefersStream(header: string | undefined): boolean {
  return read(header).streamFirst;
}

function read(header: string | undefined): Welcome {
  if (header === undefined) return UNSAID;
  const before = known.get(header);
  if (before) return before;
  const text = header.toLowerCase();
  const welcome = {
    json: isWelcome(text, 'application/json'),
    stream: isWelcome(text, 'text/event-stream'),
    streamFirst: isStreamFirst(text),
  };
  known.set(header, welcome);
  return welcome;
}

function isWelcome(header: string, type: string): boolean {
  const family = `${type.split('/', 1)[0]}/*`;
  return header.split(',').some(range => {
    const [name = '', ...parameters] = range.split(';').map(part => part.trim());
    if (name !== type && name !== family && name !== '*/*') return false;
    return !parameters.some(parameter => /^q=0(\.0*)?$/.test(parameter));
  });
}

function isStreamFirst(header: string): boolean {
  const streamWeight = weightOf(header, 'text/event-stream');
  const jsonWeight = weightOf(header, 'application/json');
  if (streamWeight !== jsonWeight) return streamWeight > jsonWeight;
  const stream = header.indexOf('text/event-stream');
  const json = header.indexOf('application/json');
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

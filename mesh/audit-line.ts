/** A longer one is cut: arguments may be as large as a request. */
const LINE_MAX = 64 * 1024;
/** What is kept of a field that does not fit. */
const FIELD_MAX = 1024;
/**
 * Line ends and controls that JSON leaves as they are but some viewer of logs obeys: DEL, C1 (NEL, CSI), the Unicode
 * separators, and the marks that turn the direction of text. They can only stand inside strings, where \u is the same.
 */
const UNSAFE = /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** The entry as one line of JSON with its newline; undefined for one that JSON cannot tell. Never throws. */
export function auditLine(entry: object, maxBytes = LINE_MAX): Buffer | undefined {
  try {
    const line = encode(JSON.stringify(entry));
    return line.length <= maxBytes ? line : encode(cut(entry, line.length, maxBytes));
  } catch {
    // A cycle, a BigInt, a toJSON that throws.
    return undefined;
  }
}

function encode(json: string): Buffer {
  const safe = json.replace(UNSAFE, mark => `\\u${mark.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return Buffer.from(`${safe}\n`);
}

/** The first fields, as many as fit, each shortened; `cut` tells how many bytes the whole line had. */
function cut(entry: object, bytes: number, maxBytes: number): string {
  const kept: Record<string, unknown> = {};
  // Six bytes is the most that one character becomes.
  let room = maxBytes / 6 - 40;
  for (const [name, value] of Object.entries(entry)) {
    const short = shorten(value);
    room -= name.length + String(short).length + 6;
    if (room < 0) break;
    Object.defineProperty(kept, name, { value: short, enumerable: true });
  }
  return JSON.stringify({ ...kept, cut: bytes });
}

function shorten(value: unknown): unknown {
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return value;
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
  return text.slice(0, FIELD_MAX);
}

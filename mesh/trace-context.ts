import { randomBytes } from 'node:crypto';

/** Which trace something belongs to, and which span caused it (W3C Trace Context, Level 1). */
export interface TraceContext {
  /** 32 lower-case hex digits, not all zero. */
  traceId: string;
  /** 16 lower-case hex digits, not all zero. */
  spanId: string;
  /** Whether the trace is recorded, as who began it decided. */
  sampled: boolean;
  /** What tracing systems note for themselves, to be passed on; '' when there is nothing. */
  state: string;
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
/** Nothing is known of later versions, but that a caller may send anything. */
const TRACEPARENT_MAX = 256;
/** §3.3.1: a key, perhaps `tenant@system`, and a value of printable ASCII without `,` and `=` that ends in no blank. */
const STATE_MEMBER =
  /^(?:[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})=[ -+\--<>-~]{0,255}[!-+\--<>-~]$/;
const STATE_MEMBERS_MAX = 32;
/** At least so many characters have to be passed on (§3.3.1.5), and no more are: it goes into every call's message. */
const STATE_MAX = 512;
/** A longer member is the first to go when there is no room for all (§3.3.1.5). */
const STATE_LONG_MEMBER = 128;
/** What is not even looked at: a `_meta` may be as large as a request. */
const STATE_READ_MAX = 16_384;
const SAMPLED = 1;

/**
 * Reads the values of `traceparent` and `tracestate`, whatever carried them: they are a caller's, so a context that
 * breaks the format is none (undefined), and of a state that does nothing is left (§4.3).
 */
export function parseTraceContext(traceparent: unknown, tracestate?: unknown): TraceContext | undefined {
  if (typeof traceparent !== 'string' || traceparent.length > TRACEPARENT_MAX) return undefined;
  const [, version, traceId = '', spanId = '', flags = '', rest] = TRACEPARENT.exec(traceparent) ?? [];
  if (version === undefined || version === 'ff' || (version === '00' && rest !== undefined)) return undefined;
  if (isZero(traceId) || isZero(spanId)) return undefined;
  const sampled = (Number.parseInt(flags, 16) & SAMPLED) !== 0;
  return { traceId, spanId, sampled, state: typeof tracestate === 'string' ? readState(tracestate) : '' };
}

/** The value of a `traceparent`, 55 characters. */
export function formatTraceparent({ traceId, spanId, sampled }: TraceContext): string {
  return `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`;
}

/** A span of its own in the trace of `parent`, or in a new one. */
export function nextSpan(parent: TraceContext | undefined, sampled: boolean): TraceContext {
  const { traceId = randomId(16), state = '' } = parent ?? {};
  return { traceId, spanId: randomId(8), sampled, state };
}

function readState(text: string): string {
  if (text.length > STATE_READ_MAX) return '';
  const members = text
    .split(',')
    .map(member => member.trim())
    .filter(member => member !== '');
  if (members.length > STATE_MEMBERS_MAX || !members.every(member => STATE_MEMBER.test(member))) return '';
  return shorten(members).join(',');
}

function shorten(members: string[]): string[] {
  const length = (list: string[]) => list.reduce((sum, member) => sum + member.length + 1, -1);
  if (length(members) <= STATE_MAX) return members;
  const kept = members.filter(member => member.length <= STATE_LONG_MEMBER);
  while (length(kept) > STATE_MAX) kept.pop();
  return kept;
}

function randomId(bytes: number): string {
  const id = randomBytes(bytes).toString('hex');
  return isZero(id) ? randomId(bytes) : id;
}

function isZero(id: string): boolean {
  return /^0+$/.test(id);
}

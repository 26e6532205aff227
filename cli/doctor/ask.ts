import { readBounded } from '../../mesh/bounded-body.ts';
import { isObject } from '../../mesh/jsonrpc.ts';
import { readJson } from '../../mesh/read-json.ts';

/** An HTTP answer, whoever gave it. */
export interface Answer {
  status: number;
  /** Media type without parameters; "" when there is none. */
  type: string;
  text: string;
  /** undefined when it is not JSON. */
  json: unknown;
}

interface Question {
  method?: 'GET' | 'POST';
  headers?: Record<string, string>;
  body?: string;
  timeoutMs?: number;
}

const TIMEOUT_MS = 5000;
const ANSWER_BYTES = 16 * 1024 * 1024;
const SHOWN_LENGTH = 300;
const CAUSES: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens there',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'the name cannot be looked up',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'no route to the network',
  ECONNRESET: 'the connection was cut',
};

/**
 * One request whose answer is bounded in time and size, whoever is at the other end. Redirects are not followed.
 * @throws Error that says why there is no answer
 */
export async function ask(
  url: string,
  { method = 'GET', headers = {}, body, timeoutMs = TIMEOUT_MS }: Question = {},
): Promise<Answer> {
  try {
    const response = await fetch(url, {
      method,
      headers: { accept: 'application/json', ...headers },
      redirect: 'manual',
      signal: AbortSignal.timeout(timeoutMs),
      ...(body === undefined ? {} : { body }),
    });
    const text = await readBounded(response.body ?? [], ANSWER_BYTES);
    if (text === undefined) throw new Error(`the answer is longer than ${ANSWER_BYTES} bytes`);
    const type = (response.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
    return { status: response.status, type, text, json: readJson(text) };
  } catch (cause) {
    throw new Error(explain(cause as Error, timeoutMs), { cause });
  }
}

/** What an answer says of a failure, in a few words: problem details, a JSON error, or its first characters. */
export function excerpt({ type, text, json }: Answer): string {
  if (isObject(json)) {
    const said = json.detail ?? json.reason ?? json.title ?? json.error ?? json.message;
    if (typeof said === 'string') return shorten(said);
  }
  if (/html/.test(type) || /^\s*</.test(text)) return 'a web page';
  return text.trim() === '' ? 'an empty body' : shorten(text);
}

/** At most some hundred characters, on one line. */
export function shorten(text: string): string {
  const line = text.trim().replaceAll(/\s+/g, ' ');
  return line.length > SHOWN_LENGTH ? `${line.slice(0, SHOWN_LENGTH)} …` : line;
}

function explain(error: Error, timeoutMs: number): string {
  if (error.name === 'TimeoutError') return `no whole answer within ${timeoutMs / 1000} s`;
  const { code, message } = (error.cause ?? error) as NodeJS.ErrnoException;
  return CAUSES[code ?? ''] ?? shorten(message || code || error.message);
}

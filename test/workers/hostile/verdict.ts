import assert from 'node:assert/strict';
import { ERROR_CODES } from '../../../mesh/errors.ts';

const CODES = new Set<string>(ERROR_CODES);
/** Lines of a stack, and places in files of ours or of a package. */
const TRACE = /\bat .+:\d+:\d+|node_modules|\.ts\b|\.mjs\b|node:internal/;

/** Nothing, or a whole HTTP answer to what was sent; a refusal is one of the catalogue's. */
export function assertAnswers(answers: string, verb: string, sent: string): void {
  const answer = answers.replace(/^(?:HTTP\/1\.1 100 Continue\r\n\r\n)+/, '');
  if (answer === '') return;
  const found = /^HTTP\/1\.1 (\d{3}) [^\r\n]*\r\n([\s\S]*?)\r\n\r\n([\s\S]*)$/.exec(answer);
  assert.ok(found, `no HTTP: ${answer.slice(0, 500)}`);
  const [, status = '', head = '', text = ''] = found;
  assert.notEqual(status, '500', answer);
  assertNoTrace(head, sent);
  if (Number(status) < 400 || verb === 'HEAD' || /^transfer-encoding: chunked/im.test(head)) return;
  assertBody(text, sent);
  if (text !== '') assert.match(head, /^content-type: application\/(problem\+)?json/im, answer);
}

/** A body to what was sent has no trace of our insides, and an error of ours is one of the catalogue's. */
export function assertBody(text: string, sent: string): void {
  assertNoTrace(text, sent);
  if (!text.startsWith('{')) return;
  const { error, code, status } = JSON.parse(text) as {
    error?: { code: unknown; data?: { code?: string } };
    code?: string;
    status?: number;
  };
  if (typeof status === 'number' && status >= 400) assert.ok(CODES.has(code ?? ''), `${sent} → ${text}`);
  if (error?.data?.code !== undefined && 'call_id' in error.data)
    assert.ok(CODES.has(error.data.code), `${sent} → ${text}`);
  assert.ok(!('statusCode' in JSON.parse(text)), `not of the catalogue: ${text}`);
}

/** What was sent may come back, and chance writes a `.ts` into it now and then. */
function assertNoTrace(text: string, sent: string): void {
  if (!TRACE.test(sent)) assert.doesNotMatch(text, TRACE, sent);
}

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { adHocService, type Service } from '../../mesh/registry.ts';
import { INITIALIZE, ready, startTestWorker, toolCall } from '../workers/helpers.ts';

/**
 * To Node's readline and Python's splitlines U+2028, U+2029 and U+0085 end a line, and JSON leaves them as they are in a
 * string. A server that reads so would take one request for two broken lines: with one character a caller leaves a call
 * without an answer, or ends a server that trusts its input. What is between the two is never a message, since a quote
 * cannot stand in a string.
 */

const LENIENT = fileURLToPath(new URL('./lenient.mjs', import.meta.url));
const ENDS = { 'U+2028': '\u2028', 'U+2029': '\u2029', 'U+0085': '\u0085' };

for (const [name, end] of Object.entries(ENDS)) {
  test(`${name} in a caller’s text ends no line of the server’s`, async t => {
    const worker = await start(t, 'shared');
    const call = await worker.connect();
    const legacy = await call(toolCall(`id${end}`, 'get_public', { [`key${end}`]: `value${end}` }));
    assert.equal(legacy.json.result?.content[0].text, 'ran:get_public', legacy.text);
    assert.equal(legacy.json.id, `id${end}`);
    const rest = await worker.post('/tools/get_public', { x: end });
    assert.equal(rest.status, 200, rest.text);
  });
}

test('nor in the name of a client with a server of its own', async t => {
  const worker = await start(t, 'session');
  for (const end of Object.values(ENDS)) {
    const params = { ...INITIALIZE.params, clientInfo: { name: `name${end}`, version: '1' } };
    const { status, text } = await worker.post('/mcp', { ...INITIALIZE, params });
    assert.equal(status, 200, text);
  }
});

async function start(t: TestContext, isolation: Service['isolation']) {
  const service = adHocService({ name: 'lenient', command: process.execPath, args: [LENIENT], isolation });
  const settings = { drainDeadlineMs: 100, handshakeTimeoutMs: 3000 };
  // A server that gets half a line answers nothing.
  const worker = await startTestWorker(t, { ...service, timeout_ms: 500 }, settings);
  await ready(worker);
  return worker;
}

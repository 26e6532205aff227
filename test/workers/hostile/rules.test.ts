import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { HEADER_RULES } from './header-rules.ts';
import { connectLegacy, type Json } from './helpers.ts';
import { HTTP_RULES } from './http-rules.ts';
import { legacyRules } from './legacy-rules.ts';
import { MODERN_RULES } from './modern-rules.ts';
import { check, initialize, message, notification, send, startRuled } from './rules.ts';

const LIST = message('tools/list');

for (const ERA of ['legacy', 'modern'] as const) {
  describe(`in front of a ${ERA} server`, () => {
    test('rules of Streamable HTTP, in both eras', async t => {
      const url = await startRuled(t, ERA);
      const { headers } = await connectLegacy(url);
      const tables = {
        http: HTTP_RULES,
        legacy: legacyRules(headers),
        modern: MODERN_RULES,
        headers: HEADER_RULES,
      };
      for (const [table, rules] of Object.entries(tables)) {
        for (const [name, asked, ...expected] of rules)
          await t.test(`${table}: ${name}`, () => check(url, asked, ...expected));
      }
    });

    test('Session Management: DELETE, then 404 whatever is asked', async t => {
      const url = await startRuled(t, ERA);
      const { headers } = await connectLegacy(url);
      const other = await connectLegacy(url);
      await check(url, { method: 'DELETE', headers }, 204);
      await check(url, { headers, body: LIST }, 404, -32001);
      await check(url, { headers, body: notification('notifications/initialized') }, 404, -32001);
      await check(url, { method: 'GET', headers: { ...headers, accept: 'text/event-stream' } }, 404, -32001);
      await check(url, { method: 'DELETE', headers }, 404, -32001);
      await check(url, { headers: other.headers, body: LIST }, 200);
    });

    test('Batching (2025-03-26): of a client of that revision', async t => {
      const url = await startRuled(t, ERA);
      const { headers } = await connectLegacy(url, { version: '2025-03-26' });
      const notice = notification('notifications/x');
      const body = [message('ping', {}, 1), notice, message('no/such', {}, 'two')];
      const { status, text } = await send(url, { headers, body });
      const answers = (JSON.parse(text) as Json[]).map(({ id, error }) => [id, error?.code]);
      assert.deepEqual(
        [status, answers],
        [
          200,
          [
            [1, undefined],
            ['two', -32601],
          ],
        ],
      );
      await check(url, { headers, body: [notice, notice] }, 202);
      await check(url, { headers, body: [LIST, initialize('2025-03-26')] }, 400, -32600);
      await check(url, { headers, body: [LIST, 5] }, 400, -32600);
      const tooMany = Array.from({ length: 21 }, (_, id) => message('ping', {}, id));
      await check(url, { headers, body: tooMany }, 400, -32600);
    });

    test('Session Management: an id is visible ASCII, and good whatever its client declared', async t => {
      const url = await startRuled(t, ERA);
      let nested: object = {};
      for (let i = 0; i < 2000; i += 1) nested = { nested };
      const declared = [
        {},
        { elicitation: { form: { x: 'A'.repeat(3000) } } },
        { sampling: { tools: nested } },
        { roots: { listChanged: 'é'.repeat(2000) } },
        { elicitation: true, sampling: [], roots: null },
      ];
      for (const capabilities of declared) {
        const { headers } = await connectLegacy(url, { capabilities });
        assert.match(headers['mcp-session-id'] ?? '', /^[\x21-\x7e]{1,2048}$/);
        await check(url, { headers, body: LIST }, 200);
      }
    });
  });
}

test('Logging: setLevel takes only levels that there are', async t => {
  const url = await startRuled(t, 'modern');
  const { headers } = await connectLegacy(url);
  for (const level of ['loud', '', 5, ['debug'], null, undefined]) {
    await check(url, { headers, body: message('logging/setLevel', { level }) }, 200, -32602);
  }
  await check(url, { headers, body: message('logging/setLevel', { level: 'error' }) }, 200);
  await check(url, { headers, body: LIST }, 200);
});

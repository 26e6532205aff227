import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { clientsOf, hostileService, startReady } from './helpers.ts';
import { assertServes, startWorkerProcess } from './worker-process.ts';

describe('results that are no results', () => {
  const results = [
    'null',
    '"text"',
    '5',
    'true',
    '[]',
    '[{"a":{}}]',
    '[null,"a["]',
    '[[],"a{ "]',
    '"}{"',
    '"a:[\\"{"',
    '{"tools":"x["}',
    '{"tools":[null,"a[",5,[{"outputSchema":null}]]}',
    '{"_meta":"a["}',
    '{"structuredContent":[null,"{"]}',
    '{"resultType":"input_required","inputRequests":{"x":null}}',
  ];
  for (const ERA of ['legacy', 'modern'] as const) {
    test(`from a ${ERA} server: each call ends, and so do the others`, async t => {
      const worker = await startWorkerProcess(t, { env: { ERA } });
      for (const json of results) {
        for (const client of await clientsOf(worker.url)) {
          const { messages } = await client.call(7, 'result', { json });
          assert.deepEqual([messages.length, messages[0].id], [1, 7], `${json}: ${JSON.stringify(messages)}`);
        }
        const rest = await fetch(`${worker.url}/tools/result`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ json }),
        });
        JSON.parse(await rest.text());
      }
      await assertServes(worker);
    });
  }

  for (const json of [
    '{"jsonrpc":"2.0","id":ID,"error":null,"result":{}}',
    '{"jsonrpc":"2.0","id":ID}',
    '{"jsonrpc":"2.0","id":ID,"result":{},"error":{"code":1,"message":"x"}}',
    '{"id":ID,"result":{}}',
    '{"jsonrpc":"2.0","id":ID,"result":"no object"}',
  ]) {
    test(`an answer that is no response fails its call at once: ${json}`, async t => {
      const worker = await startReady(t, hostileService({}, { timeout_ms: 2000 }));
      for (const client of await clientsOf(worker.url)) {
        const { messages } = await client.call(7, 'response', { json });
        assert.deepEqual(
          [messages[0].id, messages[0].error?.data?.code],
          [7, 'protocol_error'],
          JSON.stringify(messages),
        );
      }
    });
  }

  for (const error of [
    'null',
    '"boom"',
    '{}',
    '{"code":"x","message":5}',
    '[1]',
    '{"code":-32042,"message":"x","data":null}',
    '{"code":-32002,"message":"x"}',
  ]) {
    test(`an odd error reaches both eras as an error: ${error}`, async t => {
      const worker = await startReady(t, hostileService());
      for (const client of await clientsOf(worker.url)) {
        const { messages } = await client.call(7, 'response', {
          json: `{"jsonrpc":"2.0","id":ID,"error":${error}}`,
        });
        assert.equal(messages[0].id, 7);
        assert.ok('error' in messages[0] && !('result' in messages[0]), JSON.stringify(messages[0]));
        // Codes of the legacy era that a modern peer must not be sent (2026-07-28, error codes).
        if (client.era === 'modern')
          assert.ok(![-32042, -32002].includes(messages[0].error?.code), JSON.stringify(messages[0]));
      }
    });
  }
});

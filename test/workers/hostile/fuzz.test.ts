import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { until } from '../../until.ts';
import {
  anyJson,
  BODY_MAX,
  body,
  headersFor,
  method,
  nearMessage,
  path,
  printed,
  restBody,
} from './arbitraries.ts';
import {
  clientsOf,
  connectLegacy,
  hostileService,
  modernHeaders,
  SEED,
  startReady,
  textOf,
  untilIdle,
  untilReady,
} from './helpers.ts';
import { rawRequest } from './raw-requests.ts';
import { assertAnswers, assertBody } from './verdict.ts';

const OPTIONS = { seed: SEED, endOnFailure: true };

describe(`whatever comes over HTTP (FC_SEED=${SEED})`, () => {
  test('methods, paths, headers and bodies', async t => {
    const url = await startLimited(t);
    const { headers: session } = await connectLegacy(url);
    await fc.assert(
      fc.asyncProperty(method, path, headersFor(session), body, async (verb, target, headers, text) => {
        const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
        const length = `content-length: ${Buffer.byteLength(text)}\r\n`;
        const head = `${verb} ${target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n${lines.join('')}${length}\r\n`;
        assertAnswers(await talk(url, [Buffer.from(head, 'latin1'), Buffer.from(text)]), verb, head + text);
      }),
      { ...OPTIONS, numRuns: 1500 },
    );
    await assertServes(url);
  });

  for (const ERA of ['legacy', 'modern'] as const) {
    test(`messages that are nearly right, to a ${ERA} server`, async t => {
      const url = await startLimited(t, ERA);
      const { headers: session } = await connectLegacy(url);
      await fc.assert(
        fc.asyncProperty(nearMessage, fc.boolean(), async (message, isModern) => {
          const headers = isModern ? mirrored(message) : session;
          const text = JSON.stringify(message);
          const answer = await fetch(`${url}/mcp`, {
            method: 'POST',
            headers: {
              'content-type': 'application/json',
              accept: 'application/json, text/event-stream',
              ...headers,
            },
            body: text,
            signal: t.signal,
          });
          const got = await answer.text();
          assert.notEqual(answer.status, 500, `${text} → ${got}`);
          assertBody(got, text);
        }),
        { ...OPTIONS, numRuns: 1000 },
      );
      await assertServes(url);
    });
  }

  test('REST bodies', async t => {
    const url = await startLimited(t);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('/execute', '/tools/echo', '/tools/nobody', '/tools/%00', '/tools/a%2Fb'),
        restBody,
        async (where, text) => {
          const answer = await fetch(`${url}${where}`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: text,
            signal: t.signal,
          });
          const got = await answer.text();
          assert.ok(
            answer.status < 500 || answer.status === 502,
            `${where} ${text}: ${answer.status} ${got}`,
          );
          assertBody(got, `${where} ${text}`);
        },
      ),
      { ...OPTIONS, numRuns: 1000 },
    );
    await assertServes(url);
  });

  test('bytes that are hardly HTTP', async t => {
    const url = await startLimited(t);
    await fc.assert(
      fc.asyncProperty(rawRequest, async pieces => {
        assertAnswers(await talk(url, pieces), 'GET', Buffer.concat(pieces).toString());
      }),
      { ...OPTIONS, numRuns: 1000 },
    );
    await assertServes(url);
  });
});

describe('requests that never end', () => {
  const post413 = [
    'POST /mcp HTTP/1.1',
    'host: localhost',
    'content-type: application/json',
    'accept: application/json, text/event-stream',
  ];
  const piece = Buffer.alloc(16_384, ' ');

  for (const [desc, framing, encode] of [
    [
      'chunked',
      'transfer-encoding: chunked',
      (bytes: Buffer) =>
        Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]),
    ],
    ['of a length that is never reached', 'content-length: 999999999', (bytes: Buffer) => bytes],
  ] as const) {
    test(`a body beyond the limit, ${desc}: 413 while the client still sends`, async t => {
      const url = await startLimited(t);
      const socket = connect(Number(new URL(url).port), '127.0.0.1');
      t.after(() => socket.destroy());
      let got = '';
      let closed = false;
      socket.on('data', data => {
        got += data;
      });
      socket.on('close', () => {
        closed = true;
      });
      socket.on('error', () => {});
      socket.write(`${[...post413, framing].join('\r\n')}\r\n\r\n`);
      await until(async () => {
        if (!closed && !socket.writableNeedDrain) socket.write(encode(piece));
        return closed || got.includes('"too_large"');
      });
      assert.match(got, /^HTTP\/1\.1 413 /);
      await assertServes(url);
    });
  }

  test('slow clients hold their own connections and nothing else', async t => {
    const url = await startLimited(t);
    const begun = [
      '',
      'P',
      'POST /mcp HTTP/1.1\r\nhost: loc',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\nx: ',
      `${post413.join('\r\n')}\r\ncontent-length: 100\r\n\r\n{`,
      `${post413.join('\r\n')}\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{`,
    ];
    const sockets = Array.from({ length: 300 }, (_, i) => {
      const socket = connect(Number(new URL(url).port), '127.0.0.1', () =>
        socket.write(begun[i % begun.length] ?? ''),
      );
      return socket.on('error', () => {});
    });
    t.after(() => {
      for (const socket of sockets) socket.destroy();
    });
    await until(() => sockets.every(socket => !socket.connecting));
    for (let round = 0; round < 5; round += 1) {
      for (const socket of sockets) socket.write('a');
      await assertServes(url);
    }
  });
});

describe(`whatever a server prints (FC_SEED=${SEED})`, () => {
  for (const ERA of ['legacy', 'modern'] as const) {
    test(`arbitrary bytes between the messages of a ${ERA} server`, async t => {
      const { url } = await startReady(t, hostileService({ ERA }));
      const clients = await clientsOf(url);
      await fc.assert(
        fc.asyncProperty(printed, async bytes => {
          const args = { base64: Buffer.from(bytes).toString('base64') };
          for (const client of clients) assert.equal(textOf(await client.call(1, 'bytes', args)), 'printed');
        }),
        { ...OPTIONS, numRuns: 500 },
      );
      await assertServes(url);
    });

    test(`arbitrary JSON as the result or error of a ${ERA} server`, async t => {
      const { url } = await startReady(t, hostileService({ ERA }, { timeout_ms: 3000 }));
      const clients = await clientsOf(url);
      await fc.assert(
        fc.asyncProperty(anyJson, fc.constantFrom('result', 'error'), async (value, member) => {
          const json = `{"${member}":${value},"jsonrpc":"2.0","id":ID}`;
          for (const client of clients) {
            const { messages, texts } = await client.call(1, 'response', { json });
            assert.equal(messages.length, 1, json);
            assert.equal(messages[0].id, 1, texts[0]);
            assert.ok('result' in messages[0] !== 'error' in messages[0], texts[0]);
            assertBody(texts[0] ?? '', json);
          }
        }),
        { ...OPTIONS, numRuns: 1000 },
      );
      await assertServes(url);
    });
  }
});

async function startLimited(
  t: Parameters<typeof startReady>[0],
  ERA: 'legacy' | 'modern' = 'legacy',
): Promise<string> {
  const service = hostileService({ ERA });
  return (
    await startReady(t, {
      ...service,
      timeout_ms: 3000,
      limits: { ...service.limits, request_bytes: BODY_MAX },
    })
  ).url;
}

/** The headers of a modern request that mirror this message, so that what is wrong with it is found further in. */
function mirrored(message: object): Record<string, string> {
  const { method, params } = message as {
    method?: unknown;
    params?: { name?: unknown; uri?: unknown } | null;
  };
  const name = params?.name ?? params?.uri;
  const text = typeof name === 'string' ? `=?base64?${Buffer.from(name).toString('base64')}?=` : 'echo';
  // An object may have a `toString` of its own that is no function.
  const named = typeof method === 'object' ? JSON.stringify(method) : String(method);
  return modernHeaders(named.replace(/[^ -~]/g, '?'), text);
}

async function assertServes(url: string): Promise<void> {
  await untilReady(url);
  for (const client of await clientsOf(url)) {
    assert.equal(textOf(await client.call('after', 'echo', { text: 'all is well' })), 'all is well');
  }
  await untilIdle(url);
}

/** Sends pieces, then says that no more come; resolves with what came back once the worker has closed, too. */
function talk(url: string, pieces: readonly Buffer[]): Promise<string> {
  return new Promise(resolve => {
    const chunks: Buffer[] = [];
    const socket = connect({ port: Number(new URL(url).port), host: '127.0.0.1', allowHalfOpen: true });
    const done = () => {
      socket.destroy();
      resolve(Buffer.concat(chunks).toString('latin1'));
    };
    socket.on('data', chunk => {
      chunks.push(chunk);
      // A stream that was opened is an answer, and goes on for ever.
      if (
        /^HTTP\/1\.1 200 [\s\S]*?content-type: text\/event-stream[\s\S]*?\r\n\r\n/i.test(
          Buffer.concat(chunks).toString('latin1', 0, 2000),
        )
      )
        done();
    });
    socket.on('end', done);
    socket.on('close', done);
    socket.on('error', done);
    for (const piece of pieces) socket.write(piece);
    socket.end();
  });
}

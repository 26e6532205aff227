import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { META } from '../../../mesh/eras.ts';
import { seeded } from '../../seeded.ts';
import {
  type Client,
  connectLegacy,
  connectModern,
  type Exchange,
  hostileService,
  type Json,
  modernHeaders,
  post,
  SEED,
  startReady,
  textOf,
} from './helpers.ts';

const BYTES = 5_000_000;
/** Sizes of writes: they cut escapes, characters of two to four bytes and the line's end apart. */
const SIZES = [1, 2, 3, 1, 65_537, 4093, 7, 100_003, 5, 262_147, 11];
const ALPHABET = [
  'a',
  'Z',
  ' ',
  '"',
  '\\',
  '\n',
  '\u0000',
  '\u007f',
  'é',
  'ß',
  '€',
  '漢',
  '\u2028',
  '\ufeff',
  '😀',
  '𝕏',
  'data: ',
  '\r\n\r\n',
];

/** What parsers like to lose: big and oddly written numbers, order, escapes, look-alikes of the envelope, doubles. */
const FRAGMENT =
  '{"big":12345678901234567890123,"neg":-9007199254740993,"exp":1.50E+2,"z":1,"a":2,"10":"ten","9":"nine",' +
  '"\\u0061b":"\\u00e9\\/é","":0,"dup":{"id":1,"id":2,"result":{"id":3,"error":{}}},"jsonrpc":"1.0","id":99,' +
  '"params":{"_meta":{"progressToken":"inner","x":[{"}":"{\\"id\\":5}"}]}},"__proto__":{"constructor":null},' +
  '"lone":"\\ud800","spaced": [ 1 , {} , [ ] ],"method":"notifications/cancelled","deep":[[[[[{"a":[[]]}]]]]]}';

function randomText(seed: number, bytes: number): string {
  const random = seeded(seed);
  const parts: string[] = [];
  for (let size = 0; size < bytes; ) {
    const part = ALPHABET[Math.floor(random() * ALPHABET.length)] ?? 'a';
    parts.push(part);
    size += Buffer.byteLength(part);
  }
  return parts.join('');
}

const clientsOf = async (url: string): Promise<Client[]> => [
  await connectLegacy(url),
  // Before resumable streams, and before event streams had to be welcome.
  await connectLegacy(url, { version: '2025-03-26' }),
  connectModern(url),
];

for (const ERA of ['legacy', 'modern'] as const) {
  describe(`a ${ERA} server`, () => {
    test(`every byte of ${BYTES} bytes arrives, there and back, as JSON and behind progress (FC_SEED=${SEED})`, async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      const value = randomText(SEED, BYTES);
      for (const client of await clientsOf(worker.url)) {
        for (const steps of [0, 3]) {
          const meta = steps > 0 ? { meta: { progressToken: 'p' } } : {};
          const answer = await client.call(1, 'pieces', { value, sizes: SIZES, steps }, meta);
          const streamed = answer.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
          if (steps > 0) assert.ok(streamed);
          assert.equal(answer.messages.length, steps + 1);
          const got = textOf(answer);
          assert.equal(got.length, value.length);
          // Not assert.equal on both: its message would be a diff of megabytes.
          assert.ok(got === value, `differs at ${[...got].findIndex((char, i) => char !== value[i])}`);
        }
      }
      const rest = await worker.post('/tools/pieces', { value, sizes: SIZES });
      assert.ok(rest.json.content[0].text === value);
    });

    test('what stands in arguments and results arrives as it was written', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      for (const client of await clientsOf(worker.url)) {
        for (const token of [undefined, '9007199254740993', '"\\u0074"', '1.0', '0']) {
          const at = `${client.era}, progress token ${token}`;
          const there = await sendRaw(client, 'line', FRAGMENT, { token });
          assert.ok(textOf(there).includes(`"arguments":${FRAGMENT}`), `${at}: ${textOf(there)}`);
          const member = `"structuredContent":${FRAGMENT}`;
          const json = `{"content":[],${member},"x-unknown":[1.0,1e2]}`;
          const back = await sendRaw(
            client,
            'response',
            JSON.stringify({ json: `{"x-top":{"b":1,"a":2},"id":ID,"result":${json},"jsonrpc":"2.0"}` }),
            { token },
          );
          const text = back.texts.at(-1) ?? '';
          for (const piece of [member, '"x-unknown":[1.0,1e2]', '"x-top":{"b":1,"a":2}'])
            assert.ok(text.includes(piece), `${at}: ${text}`);
          if (token === undefined) continue;
          assert.ok(back.texts[0]?.includes(`"progressToken":${token}`), `${at}: ${back.texts[0]}`);
        }
      }
    });

    test('an id comes back as it was written', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      for (const client of await clientsOf(worker.url)) {
        for (const id of [
          '9007199254740993',
          '1.0',
          '-0',
          '1e3',
          '"\\u0031"',
          '"1"',
          '""',
          '"a\\"b"',
          `"${'x'.repeat(1000)}"`,
        ]) {
          const { texts } = await sendRaw(client, 'echo', '{"text":"x"}', { id });
          assert.ok(texts.at(-1)?.includes(`"id":${id}`), `${client.era} ${id}: ${texts.at(-1)}`);
          const missing = await sendRaw(client, 'no-such-tool', '{}', { id });
          assert.ok(
            missing.texts.at(-1)?.includes(`"id":${id}`),
            `error, ${client.era} ${id}: ${missing.texts.at(-1)}`,
          );
        }
      }
    });

    test('escaped keys of the envelope mean what they say', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      const legacy = await connectLegacy(worker.url);
      const { texts, messages } = await legacy.send(
        '{"jso\\u006erpc":"2.0","\\u0069d":"mine","meth\\u006fd":"tools/call","p\\u0061rams":{"n\\u0061me":"line","\\u0061rguments":{"\\u0069d":1},"_m\\u0065ta":{"progressT\\u006fken":"tok"}}}',
      );
      assert.equal(messages.at(-1).id, 'mine', texts.at(-1));
      const line = messages.at(-1).result.content[0].text as string;
      assert.ok(line.includes('{"\\u0069d":1}'), line);
      const seen = JSON.parse(line) as Json;
      assert.ok(Number.isInteger(seen.id));
      assert.equal(seen.params._meta.progressToken, seen.id, 'the token is ours, too');
    });

    test('line breaks inside a message of either side break no framing', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      for (const client of await clientsOf(worker.url)) {
        for (const white of ['\n', '\r', '\r\n', '\t', '\n\n', '\r\r']) {
          const shown = JSON.stringify(white);
          const there = await sendRaw(client, 'line', `{${white}"a":${white}1${white}}`, {
            token: '1',
            white,
          });
          assert.deepEqual(JSON.parse(textOf(there)).params.arguments, { a: 1 }, shown);
          if (white.includes('\n')) continue;
          const json = `{"jsonrpc":"2.0",${white}"id":ID,${white}"result":{${white}"content":[${white}{"type":"text","text":"whole"}]}}${white}`;
          for (const token of [undefined, '1']) {
            const back = await sendRaw(client, 'response', JSON.stringify({ json }), { token });
            assert.equal(textOf(back), 'whole', `${client.era} ${shown} ${token}`);
          }
        }
      }
    });

    test('REST carries the text of arguments and results, too', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      for (const [path, body] of [
        ['/tools/line', FRAGMENT],
        ['/execute', `{"command":"line","params":${FRAGMENT}}`],
        ['/execute', `{"command":"tools/call","params":{"name":"line","arguments":${FRAGMENT}}}`],
      ] as const) {
        const { json } = await worker.post(path, body);
        assert.ok(
          json.content[0].text.includes(`"arguments":${FRAGMENT}`),
          `${path}: ${json.content[0].text}`,
        );
      }
      const { text } = await worker.post('/tools/result', {
        json: `{"content":[],"structuredContent":${FRAGMENT}}`,
      });
      assert.ok(text.includes(`"structuredContent":${FRAGMENT}`), text);
    });
  });
}

describe('questions to the client, and its answers, arrive as they were written', () => {
  const PARAMS = `{"message":"?","requestedSchema":{"type":"object","properties":{}},"x":${FRAGMENT}}`;
  const RESULT = `{"action":"accept","content":${FRAGMENT}}`;

  for (const [ERA, isolation, tool] of [
    ['legacy', 'session', 'ask-raw'],
    ['modern', 'shared', 'need-raw'],
  ] as const) {
    test(`legacy client, ${ERA} server`, async t => {
      const worker = await startReady(t, hostileService({ ERA }, { isolation }));
      const client = await connectLegacy(worker.url, { capabilities: { elicitation: {} } });
      const replies: Promise<Exchange>[] = [];
      const answer = await client.call(
        1,
        tool,
        { params: PARAMS },
        {
          onMessage(message) {
            if (message.method !== 'elicitation/create') return;
            replies.push(
              client.send(`{"jsonrpc":"2.0","id":${JSON.stringify(message.id)},"result":${RESULT}}`),
            );
          },
        },
      );
      await Promise.all(replies);
      assert.ok(
        answer.texts.some(text => text.includes(`"x":${FRAGMENT}`)),
        answer.texts[0],
      );
      assert.ok(textOf(answer).includes(`"content":${FRAGMENT}`), textOf(answer));
    });
  }

  for (const [ERA, isolation, tool] of [
    ['legacy', 'session', 'ask-raw'],
    ['modern', 'shared', 'need-raw'],
  ] as const) {
    test(`modern client, ${ERA} server`, async t => {
      const worker = await startReady(t, hostileService({ ERA }, { isolation }));
      const client = connectModern(worker.url, { elicitation: {} });
      const asked = await client.call(1, tool, { params: PARAMS });
      const text = asked.texts.at(-1) ?? '';
      assert.ok(text.includes(`"x":${FRAGMENT}`), text);
      const { inputRequests, requestState } = asked.messages.at(-1).result;
      const [key = ''] = Object.keys(inputRequests);
      const state = requestState === undefined ? '' : `,"requestState":${JSON.stringify(requestState)}`;
      const extra = `,"inputResponses":{${JSON.stringify(key)}:${RESULT}}${state}`;
      const answer = await sendRaw(client, tool, JSON.stringify({ params: PARAMS }), { id: '2', extra });
      assert.ok(textOf(answer).includes(`"content":${FRAGMENT}`), textOf(answer));
    });
  }
});

interface RawOptions {
  id?: string;
  token?: string | undefined;
  /** Between the members of the message. */
  white?: string;
  /** Further members of `params`, as text. */
  extra?: string;
}

/** A `tools/call` written by hand; every option is JSON text. */
function sendRaw(
  client: Client,
  tool: string,
  args: string,
  { id = '1', token, white = '', extra = '' }: RawOptions = {},
): Promise<Exchange> {
  const meta = [
    ...(client.era === 'modern'
      ? [`"${META.protocolVersion}":"2026-07-28"`, `"${META.clientCapabilities}":{"elicitation":{}}`]
      : []),
    ...(token === undefined ? [] : [`"progressToken":${token}`]),
  ].join(',');
  const params = `{"name":${JSON.stringify(tool)},"arguments":${args}${extra},"_meta":{${meta}}}`;
  const body = `{${white}"x-extra":[1.0],${white}"params":${params},"jsonrpc":"2.0",${white}"method":"tools/call","id":${id}}${white}`;
  const headers =
    client.era === 'modern'
      ? modernHeaders('tools/call', tool)
      : (client as unknown as { headers: Record<string, string> }).headers;
  return post(client.url, body, headers);
}

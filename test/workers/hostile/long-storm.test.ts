import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seeded } from '../../seeded.ts';
import {
  CASUALTY,
  type Client,
  clientsOf,
  connectLegacy,
  hostileService,
  killServer,
  SEED,
  startReady,
  textOf,
  untilIdle,
  untilReady,
} from './helpers.ts';

const CALLS = 400;
const AT_ONCE = 30;
/** Calls after which the server is killed, with long messages half-way to and from it. */
const KILLS = new Set([100, 250]);
const LONGEST = 300_000;

for (const ERA of ['legacy', 'modern'] as const) {
  // The memory of long messages is given back and used again at once: what is given back too early is another call's.
  test(`long messages on a ${ERA} server are nobody else's (FC_SEED=${SEED})`, async t => {
    const worker = await startReady(t, hostileService({ ERA }, { timeout_ms: 20_000 }));
    const random = seeded(SEED);
    const clients = await clientsOf(worker.url, 3);
    const killed = new Set<number>();
    let begun = 0;
    const ended = { answered: 0, left: 0, failed: 0 };
    const caller = async () => {
      while (begun < CALLS) {
        begun += 1;
        const number = begun;
        const text = `<${number}>`.repeat(1 + Math.floor(random() * (LONGEST / 6)));
        const client = clients[Math.floor(random() * clients.length)] as Client;
        const leavesAfter = random() < 0.15 ? random() * 10 : undefined;
        if (KILLS.has(number)) await killServer(worker.url, killed);
        const leaving = new AbortController();
        if (leavesAfter !== undefined) setTimeout(() => leaving.abort(), leavesAfter);
        const answer = await client
          .call(number, 'echo', { text }, { signal: leaving.signal })
          .catch(() => {});
        if (!answer) {
          assert.ok(leaving.signal.aborted);
          ended.left += 1;
        } else if (answer.messages.at(-1).error) {
          assert.ok(CASUALTY.has(answer.messages.at(-1).error.data?.code), JSON.stringify(answer.messages));
          ended.failed += 1;
          await untilReady(worker.url);
        } else {
          assert.equal(textOf(answer), text, `call ${number} of ${text.length} characters`);
          ended.answered += 1;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, caller));
    t.diagnostic(JSON.stringify(ended));
    for (const [end, count] of Object.entries(ended)) assert.ok(count > 0, `no call ${end}`);
    await untilIdle(worker.url);
  });
}

test('an answer that its client is slow to read is nobody else’s meanwhile', async t => {
  const worker = await startReady(t, hostileService());
  const session = await connectLegacy(worker.url);
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    ...session.headers,
  };
  const call = (text: string) => {
    const params = { name: 'echo', arguments: { text } };
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params });
    return fetch(`${worker.url}/mcp`, { method: 'POST', headers, body });
  };
  const text = 'abcdefgh'.repeat(1_000_000);
  const slow = await call(text);
  for (let round = 0; round < 10; round += 1)
    await Promise.all(Array.from('0123456789', async digit => (await call(digit.repeat(100_000))).text()));
  assert.ok((await slow.text()).includes(text));
});

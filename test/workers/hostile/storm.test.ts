import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seeded } from '../../seeded.ts';
import { until } from '../../until.ts';
import {
  CASUALTY,
  type Client,
  clientsOf,
  type Exchange,
  hostileService,
  killServer,
  type LegacyClient,
  metric,
  SEED,
  startReady,
  textOf,
  untilIdle,
  untilReady,
} from './helpers.ts';

const CALLS = 1000;
/** Calls after which the server is killed, in the middle of whatever goes on then. */
const KILLS = new Set([200, 500, 800]);
const AT_ONCE = 80;

interface Tally {
  answered: number;
  refused: number;
  cancelled: number;
  abandoned: number;
  casualties: number;
}

for (const ERA of ['legacy', 'modern'] as const) {
  test(`${CALLS} calls on a ${ERA} server, with cancels, disconnects and kills (FC_SEED=${SEED})`, async t => {
    const worker = await startReady(t, hostileService({ ERA }, { timeout_ms: 20_000 }));
    const random = seeded(SEED);
    const clients = await clientsOf(worker.url, 5);
    const tally: Tally = { answered: 0, refused: 0, cancelled: 0, abandoned: 0, casualties: 0 };
    const killed = new Set<number>();
    let begun = 0;
    const caller = async () => {
      while (begun < CALLS) {
        begun += 1;
        const number = begun;
        // Drawn before anything is waited for: which call gets what depends on the seed alone.
        const plan = {
          kind: random(),
          client: Math.floor(random() * clients.length),
          ms: Math.floor(random() * 20),
        };
        if (KILLS.has(number)) await killServer(worker.url, killed);
        const client = clients[plan.client] as Client;
        const casualty = await callAsPlanned(client, number, plan, tally);
        // Until the server is back, more calls would only be refused.
        if (casualty) await untilReady(worker.url);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, caller));

    assert.equal(
      Object.values(tally).reduce((sum, count) => sum + count),
      CALLS,
    );
    for (const [outcome, count] of Object.entries(tally)) assert.ok(count > 0, `the storm had no ${outcome}`);
    t.diagnostic(JSON.stringify(tally));
    await until(async () => (await metric(worker.url, 'child_restarts_total')) >= KILLS.size);
    await untilReady(worker.url);
    await untilIdle(worker.url);
    for (const client of clients)
      assert.equal(textOf(await client.call(1, 'echo', { text: 'still here' })), 'still here');
    assert.equal(await metric(worker.url, 'in_flight'), 0);
  });
}

/** One call; true when the server's death was its end. */
async function callAsPlanned(
  client: Client,
  number: number,
  { kind, ms }: { kind: number; ms: number },
  tally: Tally,
): Promise<boolean> {
  // The same ids come from every client.
  const id = number % 2 === 0 ? number % 100 : `call-${number % 100}`;
  const tag = `<${number}>`;
  const meta = { progressToken: number % 7 };
  const end = (exchange: Exchange, outcome: () => void) => settle(exchange, id, tally, outcome);
  if (kind < 0.3) {
    const answer = await client.call(id, 'echo', { text: tag });
    return end(answer, () => {
      assert.equal(textOf(answer), tag);
      tally.answered += 1;
    });
  }
  if (kind < 0.5) {
    const answer = await client.call(id, 'slow', { ms });
    return end(answer, () => {
      assert.equal(textOf(answer), 'slept');
      tally.answered += 1;
    });
  }
  if (kind < 0.65) {
    const answer = await client.call(id, 'chatter', { steps: 4, tag }, { meta });
    const progress = answer.messages.slice(0, -1);
    for (const [i, { params }] of progress.entries())
      assert.deepEqual(
        [params.progressToken, params.progress, params.message],
        [meta.progressToken, i + 1, tag],
      );
    return end(answer, () => {
      assert.equal(progress.length, 4);
      assert.equal(textOf(answer), tag);
      tally.answered += 1;
    });
  }
  if (kind < 0.75) {
    const answer = await client.call(id, 'error');
    return end(answer, () => {
      assert.deepEqual(answer.messages.at(-1).error, { code: -32602, message: 'refused by the tool' });
      tally.refused += 1;
    });
  }
  if (kind < 0.9) return kind < 0.83 ? giveUp(client, id, tag, tally) : disconnect(client, id, ms, tally);
  const answer = await client.call(id, 'chatter', { steps: 2, tag });
  return end(answer, () => {
    assert.equal(answer.messages.length, 1, 'no progress without a token');
    tally.answered += 1;
  });
}

/** A call that never ends, given up in the way of the client's era once it is certainly under way. */
async function giveUp(client: Client, id: number | string, tag: string, tally: Tally): Promise<boolean> {
  const leaving = new AbortController();
  // An id of its own: a cancel must not hit another call of this client.
  const own = `${tag}-${id}`;
  let ended = false;
  let hangs = false;
  const pending = client
    .call(
      own,
      'hang',
      {},
      {
        meta: { progressToken: own },
        signal: leaving.signal,
        onMessage: message => {
          hangs ||= message.method === 'notifications/progress';
        },
      },
    )
    .then(
      exchange => exchange,
      (error: Error) => error,
    )
    .finally(() => {
      ended = true;
    });
  await until(() => hangs || ended);
  if (client.era === 'modern') leaving.abort();
  else await (client as LegacyClient).notify('notifications/cancelled', { requestId: own });
  const outcome = await pending;
  if (outcome instanceof Error) {
    tally.abandoned += 1;
    return false;
  }
  return settle(outcome, own, tally, () => {
    assert.equal(outcome.messages.at(-1).error.data.code, 'cancelled');
    tally.cancelled += 1;
  });
}

/** A client that goes away some time after it called, answered or not. */
async function disconnect(client: Client, id: number | string, ms: number, tally: Tally): Promise<boolean> {
  const leaving = new AbortController();
  const pending = client.call(id, 'slow', { ms: 10 }, { signal: leaving.signal }).catch(() => {});
  setTimeout(() => leaving.abort(), ms);
  await pending;
  tally.abandoned += 1;
  return false;
}

/** Exactly one answer, the last thing to come, under the call's own id. */
function settle(
  { messages, status }: Exchange,
  id: number | string,
  tally: Tally,
  outcome: () => void,
): boolean {
  const finals = messages.filter(message => message.method === undefined);
  assert.equal(finals.length, 1, `status ${status}: ${JSON.stringify(messages)}`);
  assert.equal(messages.at(-1), finals[0]);
  assert.equal(finals[0].id, id, JSON.stringify(finals[0]));
  if (CASUALTY.has(finals[0].error?.data?.code)) {
    tally.casualties += 1;
    return true;
  }
  outcome();
  return false;
}

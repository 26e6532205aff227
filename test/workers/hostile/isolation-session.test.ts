import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { META } from '../../../mesh/eras.ts';
import { until } from '../../until.ts';
import {
  type Client,
  connectLegacy,
  connectModern,
  hostileService,
  type Json,
  type LegacyClient,
  metric,
  openGet,
  startReady,
  textOf,
  untilIdle,
} from './helpers.ts';
import { assertOwnOnly, type Witness } from './witness.ts';

describe('isolation: session', () => {
  const service = () => hostileService({}, { isolation: 'session' });

  test('each session has a process of its own, with a state of its own', async t => {
    const worker = await startReady(t, service());
    const sessions = await Promise.all(Array.from({ length: 4 }, () => connectLegacy(worker.url)));
    const pids = await Promise.all(sessions.map(async session => textOf(await session.call(1, 'pid'))));
    assert.equal(new Set(pids).size, sessions.length);
    await Promise.all(sessions.map((session, i) => session.call(2, 'remember', { value: `<session-${i}>` })));
    for (const [i, session] of sessions.entries()) {
      assert.equal(textOf(await session.call(3, 'remember')), `<session-${i}>`);
      assert.equal(textOf(await session.call(4, 'pid')), pids[i]);
    }
    const modern = connectModern(worker.url);
    assert.ok(!pids.includes(textOf(await modern.call(1, 'pid'))));
    assert.equal(textOf(await modern.call(2, 'remember')), '');
  });

  test('logs and changes of one session reach no other, on any stream', async t => {
    const worker = await startReady(t, service());
    const witnesses: Witness[] = await Promise.all(
      Array.from({ length: 4 }, async (_, i) => ({
        client: await connectLegacy(worker.url),
        tag: `<session-${i}>`,
        seen: [],
      })),
    );
    const modern: Witness = { client: connectModern(worker.url), tag: '<modern>', seen: [] };
    const streams = await Promise.all(
      witnesses.map(({ client, seen }) =>
        openGet(client as Awaited<ReturnType<typeof connectLegacy>>, m => seen.push(m)),
      ),
    );
    t.after(() => {
      for (const stream of streams) stream.close();
    });
    await Promise.all(
      [...witnesses, modern].map(async ({ client, tag, seen }) => {
        const meta = {
          progressToken: 'same',
          ...(client === modern.client ? { [META.logLevel]: 'debug' } : {}),
        };
        const answer = await client.call(1, 'chatter', { steps: 3, tag }, { meta });
        seen.push(...answer.messages);
        assert.equal(textOf(answer), tag);
      }),
    );
    assertOwnOnly([...witnesses, modern]);
    for (const { seen } of [...witnesses, modern]) {
      const logs = seen.filter(message => message.method === 'notifications/message');
      assert.equal(logs.length, 3, 'its own logs did come');
    }
  });

  test('an elicitation goes to its own session, and only that session can answer it', async t => {
    const worker = await startReady(t, service());
    const capabilities = { elicitation: {} };
    const sessions = await Promise.all(
      Array.from({ length: 4 }, () => connectLegacy(worker.url, { capabilities })),
    );
    const seen: Json[][] = sessions.map(() => []);
    const calls = sessions.map((session, i) =>
      session.call(
        1,
        'ask',
        { question: `<question-${i}>` },
        { onMessage: message => seen[i]?.push(message) },
      ),
    );
    await until(() => seen.every(messages => messages.length === 1));
    seen.forEach(([asked], i) => {
      assert.deepEqual([asked.method, asked.params.message], ['elicitation/create', `<question-${i}>`]);
    });
    const answerTo = (i: number, who: string) => ({
      jsonrpc: '2.0',
      id: seen[i]?.[0].id,
      result: { action: 'accept', content: { who } },
    });
    // Everybody forges the answers of all the others first.
    for (const [i, session] of sessions.entries()) {
      for (const j of sessions.keys()) if (j !== i) await session.send(answerTo(j, `<forged by ${i}>`));
    }
    for (const [i, session] of sessions.entries()) await session.send(answerTo(i, `<session-${i}>`));
    for (const [i, call] of calls.entries()) {
      assert.equal(JSON.parse(textOf(await call)).content.who, `<session-${i}>`);
    }
  });

  test('modern calls on servers of their own: each is asked its own question', async t => {
    const worker = await startReady(t, service());
    const clients = Array.from({ length: 4 }, () => connectModern(worker.url, { elicitation: {} }));
    const rounds = await Promise.all(
      clients.map((client, i) => client.call(1, 'ask', { question: `<question-${i}>` })),
    );
    const results = rounds.map(({ messages }) => messages.at(-1).result);
    results.forEach((result, i) => {
      const questions: Json[] = Object.values(result.inputRequests);
      assert.deepEqual(
        questions.map(({ params }) => params.message),
        [`<question-${i}>`],
      );
    });
    // Brought back with another one's arguments, a state leads nowhere and stays good for its own call.
    const bring = (i: number, state: string, question: string) => {
      const inputResponses = Object.fromEntries(
        Object.keys(results[i].inputRequests).map(key => [
          key,
          { action: 'accept', content: { who: `<client-${i}>` } },
        ]),
      );
      const params = { name: 'ask', arguments: { question }, requestState: state, inputResponses };
      return clients[i]?.request(2, 'tools/call', params);
    };
    const crossed = await bring(0, results[1].requestState, '<question-0>');
    assert.equal(crossed?.messages.at(-1).error.code, -32602);
    for (const i of clients.keys()) {
      const answer = await bring(i, results[i].requestState, `<question-${i}>`);
      assert.ok(answer);
      assert.equal(JSON.parse(textOf(answer)).content.who, `<client-${i}>`);
    }
    const again = await bring(1, results[1].requestState, '<question-1>');
    assert.equal(again?.messages.at(-1).error.code, -32602, 'a state is good once');
  });

  test('each round of a modern call asks something', async t => {
    const worker = await startReady(t, service());
    const client = connectModern(worker.url, { elicitation: {} });
    const rounds: number[] = [];
    let state = {};
    for (;;) {
      const answer = await client.request(1, 'tools/call', { name: 'ask-pair', arguments: {}, ...state });
      const { result } = answer.messages.at(-1);
      if (result.resultType !== 'input_required') {
        assert.equal(textOf(answer), 'both answered');
        break;
      }
      const keys = Object.keys(result.inputRequests);
      rounds.push(keys.length);
      const inputResponses = Object.fromEntries(keys.map(key => [key, { action: 'accept', content: {} }]));
      state = { requestState: result.requestState, inputResponses };
    }
    assert.ok(!rounds.includes(0), `questions by round: ${rounds}`);
  });

  test('a modern client that leaves while its server starts has cancelled its call', async t => {
    const pool = { ...service().pool, spares: 0 };
    const worker = await startReady(t, hostileService({}, { isolation: 'session', pool }));
    // From before the request is read to after its server is there.
    for (let ms = 0; ms <= 60; ms += 4) {
      const leaving = new AbortController();
      const pending = connectModern(worker.url).call(1, 'hang', {}, { signal: leaving.signal });
      setTimeout(() => leaving.abort(), ms);
      await assert.rejects(pending);
    }
    await untilIdle(worker.url);
  });

  test('the gauge of calls in flight counts those on servers of sessions', async t => {
    const worker = await startReady(t, service());
    const clients = [await connectLegacy(worker.url), connectModern(worker.url)];
    const leaving = new AbortController();
    const pending = clients.map(client =>
      client.call(1, 'hang', {}, { signal: leaving.signal }).catch(() => {}),
    );
    await until(async () => (await metric(worker.url, 'in_flight')) === 2);
    const [legacy] = clients as [LegacyClient, Client];
    await legacy.notify('notifications/cancelled', { requestId: 1 });
    leaving.abort();
    await Promise.all(pending);
    await untilIdle(worker.url);
  });

  test('what a server says of a modern call that is over does not go to the next call', async t => {
    const worker = await startReady(t, service());
    const capabilities = { elicitation: {} };
    const first = connectModern(worker.url, capabilities);
    assert.equal(textOf(await first.call(1, 'late', { tag: '<first>' })), 'answered early');
    const second = connectModern(worker.url, capabilities);
    const { messages } = await second.call(2, 'release-late', {}, { meta: { [META.logLevel]: 'debug' } });
    assert.ok(
      !JSON.stringify(messages).includes('<first>'),
      `the second client was sent ${JSON.stringify(messages)}`,
    );
  });
});

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
  openGet,
  startReady,
  textOf,
  untilIdle,
} from './helpers.ts';
import { assertOwnOnly, methodsOf, type Witness } from './witness.ts';

const CLIENTS = 12;

async function mixedClients(url: string, count = CLIENTS): Promise<Witness[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, i) => ({
      client:
        i % 2 === 0
          ? await connectLegacy(url, { capabilities: { elicitation: {} } })
          : connectModern(url, { elicitation: {} }),
      tag: `<client-${i}>`,
      seen: [],
    })),
  );
}

for (const ERA of ['legacy', 'modern'] as const) {
  describe(`many clients on one ${ERA} server`, () => {
    test('same ids and same progress tokens at once: answers and progress find their own client', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      const witnesses = await mixedClients(worker.url);
      await Promise.all(
        witnesses.map(async ({ client, tag, seen }) => {
          const meta = { progressToken: 'same' };
          const answer = await client.call(7, 'chatter', { steps: 5, tag }, { meta });
          seen.push(...answer.messages);
          assert.equal(answer.messages.at(-1).id, 7);
          assert.equal(textOf(answer), tag);
        }),
      );
      assertOwnOnly(witnesses);
      for (const witness of witnesses) {
        const progress = witness.seen.filter(message => message.method === 'notifications/progress');
        assert.deepEqual(
          progress.map(({ params }) => [params.progressToken, params.progress, params.message]),
          [1, 2, 3, 4, 5].map(step => ['same', step, witness.tag]),
        );
        // Neither a log of somebody's nor a change that only a listener asked for.
        assert.deepEqual([...new Set(methodsOf(witness))], ['notifications/progress']);
      }
    });

    test('same ids many times over, as numbers, strings and fractions', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      const witnesses = await mixedClients(worker.url);
      const ids = [1, '1', 'id', 1e15, -1];
      await Promise.all(
        witnesses.flatMap(({ client, tag }) =>
          ids.map(async id => {
            const answer = await client.call(id, 'echo', { text: `${tag}${typeof id}${id}` });
            assert.equal(answer.messages.length, 1);
            assert.deepEqual([answer.messages[0].id, textOf(answer)], [id, `${tag}${typeof id}${id}`]);
          }),
        ),
      );
    });

    test('changes reach those who subscribed to their kind, and nobody else', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      const [one, two, caller] = await Promise.all([
        connectModern(worker.url),
        connectModern(worker.url),
        connectLegacy(worker.url),
      ]);
      const heard: Record<'tools' | 'files' | 'standing', Json[]> = { tools: [], files: [], standing: [] };
      const closing = new AbortController();
      const listen = (client: Client, notifications: object, into: Json[]) =>
        client
          .request(
            3,
            'subscriptions/listen',
            { notifications },
            { signal: closing.signal, onMessage: m => into.push(m) },
          )
          .catch(() => {});
      const open = [
        listen(one, { toolsListChanged: true }, heard.tools),
        listen(two, { resourceSubscriptions: ['file:///mine'] }, heard.files),
      ];
      t.after(() => closing.abort());
      const standing = await openGet(caller, message => heard.standing.push(message));
      t.after(() => standing.close());
      await until(() => heard.tools.length === 1 && heard.files.length === 1);

      const poster = connectModern(worker.url);
      const posted = await poster.call(3, 'change', { kinds: ['tools', 'prompts', 'resources'] });
      for (const uri of ['file:///other', 'file:///mine/deep', 'file:///mineral', 'file:///mine']) {
        await poster.call(3, 'chatter', { steps: 1, tag: 'x', uri });
      }
      // The last of each has come, so whatever was to come before it has come, too.
      await until(() => heard.files.length === 3 && heard.tools.length === 2);
      assert.deepEqual(posted.messages.length, 1);
      assert.deepEqual(
        heard.tools.map(message => message.method),
        ['notifications/subscriptions/acknowledged', 'notifications/tools/list_changed'],
      );
      assert.deepEqual(
        heard.files.slice(1).map(({ params }) => params.uri),
        ['file:///mine/deep', 'file:///mine'],
      );
      for (const message of [...heard.tools, ...heard.files])
        assert.equal(message.params._meta[META.subscriptionId], 3);
      await until(
        () =>
          heard.standing.filter(({ method }) => method === 'notifications/prompts/list_changed').length === 5,
      );
      assert.ok(!JSON.stringify(heard.standing).includes('resources/updated'));
      assert.ok(!JSON.stringify(heard.standing).includes(META.subscriptionId));
      closing.abort();
      await Promise.all(open);
    });

    test('one client cannot cancel the requests of another', async t => {
      const worker = await startReady(t, hostileService({ ERA }));
      const [mine, other] = await Promise.all([connectLegacy(worker.url), connectLegacy(worker.url)]);
      const leaving = new AbortController();
      let mineHangs = false;
      const pending = mine.call(
        1,
        'hang',
        {},
        {
          meta: { progressToken: 1 },
          onMessage: () => {
            mineHangs = true;
          },
        },
      );
      const modern = connectModern(worker.url)
        .call(1, 'hang', {}, { meta: { progressToken: 1 }, signal: leaving.signal })
        .catch(() => {});
      await until(() => mineHangs);
      for (const requestId of [1, '1', 2, null]) await other.notify('notifications/cancelled', { requestId });
      assert.equal(textOf(await other.call(2, 'cancelled')), '[]');
      await mine.notify('notifications/cancelled', { requestId: 1 });
      assert.equal((await pending).messages.at(-1).error.data.code, 'cancelled');
      leaving.abort();
      await modern;
      await untilIdle(worker.url);
      assert.equal(JSON.parse(textOf(await other.call(3, 'cancelled'))).length, 2);
    });
  });
}

test('a shared server asks nobody: its requests are refused, and reach no client', async t => {
  const worker = await startReady(t, hostileService());
  const witnesses = await mixedClients(worker.url, 6);
  const streams = await Promise.all(
    witnesses.map(({ client, seen }) =>
      client.era === 'legacy'
        ? openGet(client as Awaited<ReturnType<typeof connectLegacy>>, m => seen.push(m))
        : undefined,
    ),
  );
  t.after(() => {
    for (const stream of streams) stream?.close();
  });
  await Promise.all(
    witnesses.map(async ({ client, tag, seen }) => {
      const answer = await client.call(1, 'ask', { question: tag });
      seen.push(...answer.messages);
      assert.equal(JSON.parse(textOf(answer)).code, -32601);
    }),
  );
  for (const witness of witnesses) assert.deepEqual(methodsOf(witness), []);
});

test('logs of a call that was given up do not go to the next one that asks for logs', async t => {
  const worker = await startReady(t, hostileService({ ERA: 'modern' }));
  const first = connectModern(worker.url);
  const leaving = new AbortController();
  let begun = false;
  const gone = first
    .call(
      1,
      'log-on',
      { tag: '<first>' },
      {
        meta: { progressToken: 1, [META.logLevel]: 'debug' },
        signal: leaving.signal,
        onMessage: () => {
          begun = true;
        },
      },
    )
    .catch(() => {});
  await until(() => begun);
  leaving.abort();
  await gone;
  await untilIdle(worker.url);
  // The server has not stopped: it logs on for the first client, whose call nobody waits for any more.
  const second = connectModern(worker.url);
  const { messages } = await second.call(1, 'slow', { ms: 100 }, { meta: { [META.logLevel]: 'debug' } });
  await second.call(2, 'stop-loggers');
  assert.equal(messages.at(-1).result.content[0].text, 'slept');
  assert.ok(!JSON.stringify(messages).includes('<first>'), 'the second client was sent the first one’s log');
});

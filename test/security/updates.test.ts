import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { adHocService, type Service } from '../../mesh/registry.ts';
import { until } from '../until.ts';
import { INITIALIZE, ready, startTestWorker, type TestWorker, toolCall } from '../workers/helpers.ts';
import {
  type Json,
  type LegacyClient,
  MODERN_META,
  modernHeaders,
  openGet,
  post,
} from '../workers/hostile/helpers.ts';
import { identityOf, makeKeys, policyOf, workerKeys } from './keys.ts';

/** Updates of resources go to those who may read them; an update may name a part of what is followed. */

const LENIENT = fileURLToPath(new URL('./lenient.mjs', import.meta.url));
const FOLDER = 'file:///pub';
const PART = 'file:///pub/part.txt';
const UPDATED = 'notifications/resources/updated';
const keys = makeKeys();
const policy = policyOf({
  roles: {
    all: { allow: [{ service: 'lenient' }] },
    folder: { allow: [{ service: 'lenient', resources: [FOLDER], tools: ['constructor'] }] },
    rest: {
      allow: [{ service: 'lenient' }],
      deny: [{ service: 'lenient', resources: ['file:///pub/part*'] }],
    },
  },
});

for (const ERA of ['legacy', 'modern']) {
  describe(`from a ${ERA} server that all share`, () => {
    test('legacy streams', async t => {
      const worker = await start(t, { env: { ERA } });
      const streams = await Promise.all(
        ['all', 'folder', 'rest'].map(role => openLegacy(t, worker, role, FOLDER)),
      );
      await assertHeard(worker, streams);
    });

    test('modern streams', async t => {
      const worker = await start(t, { env: { ERA } });
      const streams = await Promise.all(
        ['all', 'folder', 'rest'].map(role => openModern(t, worker, role, FOLDER)),
      );
      await assertHeard(worker, streams);
    });
  });
}

test('from the own server of a session', async t => {
  const worker = await start(t, { isolation: 'session' });
  const all = await openLegacy(t, worker, 'all', FOLDER);
  const folder = await openLegacy(t, worker, 'folder', FOLDER);
  for (const stream of [all, folder]) {
    for (const uri of [PART, FOLDER]) await stream.call(toolCall(2, 'constructor', { uri }));
    await until(() => stream.heard.includes(FOLDER));
  }
  assert.deepEqual([all.heard, folder.heard], [[PART, FOLDER], [FOLDER]]);
});

test('who may not read a resource cannot follow it', async t => {
  const worker = await start(t, {});
  const { subscribed } = await openLegacy(t, worker, 'folder', 'note://one');
  assert.equal(subscribed.error?.data.code, 'forbidden');
  const listening = await openModern(t, worker, 'folder', 'note://one');
  assert.deepEqual(listening.acknowledged.resourceSubscriptions, []);
});

interface Stream {
  /** URIs of updates. */
  heard: string[];
}

/** An update of a part and then one of the whole: who has the second has had whatever he gets of the first. */
async function assertHeard(worker: TestWorker, streams: Stream[]): Promise<void> {
  const identity = identityOf(keys, { service: 'lenient', policy, roles: ['all'] });
  for (const uri of [PART, FOLDER]) {
    const answer = await worker.post('/tools/constructor', { uri }, identity);
    assert.equal(answer.status, 200, answer.text);
  }
  await until(() => streams.every(({ heard }) => heard.includes(FOLDER)));
  assert.deepEqual(
    streams.map(({ heard }) => heard),
    [[PART, FOLDER], [FOLDER], [FOLDER]],
  );
}

async function openLegacy(t: TestContext, worker: TestWorker, role: string, uri: string) {
  const identity = identityOf(keys, { service: 'lenient', policy, roles: [role], principal: `key:${role}` });
  const opened = await worker.post('/mcp', INITIALIZE, identity);
  const headers = { ...identity, 'mcp-session-id': opened.headers.get('mcp-session-id') ?? '' };
  const call = (body: object) => worker.post('/mcp', body, headers);
  const subscribed = await call({ jsonrpc: '2.0', id: 1, method: 'resources/subscribe', params: { uri } });
  const heard: string[] = [];
  const stream = await openGet(
    { url: worker.url, headers } as Partial<LegacyClient> as LegacyClient,
    message => take(message, heard),
  );
  t.after(stream.close);
  return { heard, call, subscribed: subscribed.json as Json };
}

async function openModern(t: TestContext, worker: TestWorker, role: string, uri: string) {
  const identity = identityOf(keys, { service: 'lenient', policy, roles: [role], principal: `key:${role}` });
  const heard: string[] = [];
  const closing = new AbortController();
  t.after(() => closing.abort());
  const params = { notifications: { resourceSubscriptions: [uri] }, _meta: MODERN_META };
  const body = { jsonrpc: '2.0', id: 1, method: 'subscriptions/listen', params };
  const acknowledged = Promise.withResolvers<Json>();
  const headers = { ...identity, ...modernHeaders('subscriptions/listen') };
  const onMessage = (message: Json) => {
    if (message.method?.endsWith('/acknowledged')) acknowledged.resolve(message.params.notifications);
    take(message, heard);
  };
  post(worker.url, body, headers, { signal: closing.signal, onMessage }).catch(acknowledged.reject);
  return { heard, acknowledged: await acknowledged.promise };
}

function take(message: Json, heard: string[]): void {
  if (message.method === UPDATED) heard.push(message.params.uri);
}

async function start(t: TestContext, overrides: Partial<Service>): Promise<TestWorker> {
  const service = adHocService({ name: 'lenient', command: process.execPath, args: [LENIENT], ...overrides });
  const worker = await startTestWorker(
    t,
    { ...service, ...overrides },
    {
      ...workerKeys(keys, 'lenient'),
      drainDeadlineMs: 100,
    },
  );
  await ready(worker);
  return worker;
}

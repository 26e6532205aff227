import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createLimits, LimitError } from '../../kong-plugin/limits.ts';
import { errorHeaders, MeshError } from '../../mesh/errors.ts';
import type { Limits } from '../../mesh/grants.ts';
import { createLimitStore } from '../../mesh/limit-store.ts';
import { skipWithoutRedis, startRealRedis } from '../real-redis.ts';

const skip = skipWithoutRedis();
const RATE: Limits = { rate: { requests: 3, windowS: 60 } };

test('a request is counted, and the answer tells the limit and what is left of it', async () => {
  const { enter, pass } = gateway();
  assert.deepEqual(await enter({ limits: { rate: { requests: 600, windowS: 60 } } }), {
    'ratelimit-policy': '"default";q=600;w=60',
    ratelimit: '"default";r=599;t=60',
  });
  pass(17_001);
  assert.equal(
    (await enter({ limits: { rate: { requests: 600, windowS: 60 } } })).ratelimit,
    '"default";r=598;t=43',
  );
});

test('beyond the limit: 429 with Retry-After until the window ends; the refused ones did not count', async () => {
  const { enter, pass } = gateway();
  for (let i = 0; i < 3; i += 1) await enter({ limits: RATE });
  pass(20_500);
  for (let i = 0; i < 5; i += 1) {
    const error = await refusal(enter({ limits: RATE }));
    assert.deepEqual([error.code, error.status, error.retryAfterMs], ['rate_limited', 429, 39_500]);
    assert.equal(errorHeaders(error)['retry-after'], '40');
    assert.deepEqual(error.headers, {
      'ratelimit-policy': '"default";q=3;w=60',
      ratelimit: '"default";r=0;t=40',
    });
  }
  pass(39_500);
  assert.equal((await enter({ limits: RATE })).ratelimit, '"default";r=2;t=60');
});

test('each principal has limits of its own in each service, whatever their names look like', async () => {
  const { enter } = gateway();
  const limits: Limits = { rate: { requests: 1, windowS: 60 }, inFlight: 1 };
  await enter({ limits, service: 'a', principal: 'key:x' });
  for (const other of [
    { service: 'a', principal: 'key:y' },
    { service: 'b', principal: 'key:x' },
    { service: 'a","key:x', principal: '' },
  ]) {
    await enter({ limits, ...other });
  }
  await refusal(enter({ limits, service: 'a', principal: 'key:x' }));
});

test('places in flight: one too many is refused, and one given back is free', async () => {
  const { enter, leave } = gateway();
  const limits: Limits = { ...RATE, inFlight: 2 };
  await enter({ limits, lease: '1' });
  await enter({ limits, lease: '2' });
  const error = await refusal(enter({ limits, lease: '3' }));
  assert.equal(error.code, 'too_many_in_flight');
  assert.equal(errorHeaders(error)['retry-after'], '1');
  assert.deepEqual(error.headers, { 'ratelimit-policy': '"default";q=3;w=60' });
  leave('1');
  leave('1');
  leave('3');
  leave('never seen');
  // The refused one was not counted.
  assert.equal((await enter({ limits, lease: '4' })).ratelimit, '"default";r=0;t=60');
  await refusal(enter({ limits, lease: '5' }));
});

test('a request that its rate refuses gives its place back', async () => {
  const { enter, leave, pass } = gateway();
  const limits: Limits = { rate: { requests: 1, windowS: 10 }, inFlight: 1 };
  await enter({ limits, lease: '1' });
  leave('1');
  for (let i = 0; i < 3; i += 1) {
    assert.equal((await refusal(enter({ limits, lease: `refused ${i}` }))).code, 'rate_limited');
  }
  pass(10_000);
  await enter({ limits, lease: '2' });
});

test('a place whose end nobody tells is free after its time', async () => {
  const { enter, leave, pass } = gateway();
  const limits: Limits = { inFlight: 1 };
  await enter({ limits, lease: 'lost', ttlMs: 30_000 });
  pass(29_999);
  await refusal(enter({ limits, lease: 'early' }));
  pass(1);
  await enter({ limits, lease: 'next' });
  // The late word of the lost one frees nobody else's place.
  leave('lost');
  await refusal(enter({ limits, lease: 'third' }));
});

test('a caller without limits gets no headers and takes no place', async () => {
  const { enter } = gateway();
  for (let i = 0; i < 50; i += 1) assert.deepEqual(await enter({ limits: {} }), {});
});

test('two gateways on one Redis share rates and places', { skip }, async t => {
  const redis = await startRealRedis();
  t.after(redis.close);
  const [one, two] = [shared(t, redis.url), shared(t, redis.url)];
  const limits: Limits = { rate: { requests: 100, windowS: 60 }, inFlight: 10 };
  const tries = Array.from({ length: 20 }, (_, i) =>
    [one, two].map(({ enter }, gateway) => enter({ limits, lease: `${gateway}.${i}` })),
  );
  const results = await Promise.allSettled(tries.flat());
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 10);
  const refused = results.flatMap(result => (result.status === 'rejected' ? [result.reason.code] : []));
  assert.deepEqual([...new Set(refused)], ['too_many_in_flight']);
  for (const [gateway, { leave }] of [one, two].entries())
    for (let i = 0; i < 20; i += 1) leave(`${gateway}.${i}`);
  const serial = [];
  for (let i = 0; i < 60; i += 1) {
    for (const [gateway, { enter, leave }] of [one, two].entries()) {
      const lease = `serial ${gateway}.${i}`;
      serial.push(await enter({ limits, lease }).catch(error => error.code));
      leave(lease);
    }
  }
  assert.equal(serial.filter(answer => answer !== 'rate_limited').length, 90);
});

test('Redis gone, and the setting is to refuse: no place stays taken, callers without limits pass', {
  skip,
}, async t => {
  const redis = await startRealRedis();
  const { enter } = shared(t, redis.url, 'deny');
  await enter({ limits: { inFlight: 1 }, lease: '1' });
  await redis.close();
  const error = await enter({ limits: RATE, lease: '2' }).catch((fault: unknown) => fault);
  assert.ok(error instanceof MeshError);
  assert.equal(error.code, 'rate_limited');
  assert.deepEqual(await enter({ limits: {}, lease: '3' }), {});
});

type Options = Partial<Parameters<ReturnType<typeof createLimits>['enter']>[0]>;

function gateway(store = createLimitStore({ log: () => {} })) {
  let now = 1000;
  let calls = 0;
  const { enter, leave } = createLimits({ store, now: () => now });
  return {
    leave,
    pass: (ms: number) => (now += ms),
    async enter(options: Options) {
      calls += 1;
      const defaults = {
        principal: 'key:a',
        service: 'echo',
        limits: {},
        lease: `lease ${calls}`,
        ttlMs: 60_000,
      };
      return (await enter({ ...defaults, ...options })).headers;
    },
  };
}

function shared(t: TestContext, redisUrl: string, onStoreFailure: 'allow' | 'deny' = 'allow') {
  const store = createLimitStore({ redisUrl, onStoreFailure, answerMs: 30_000, log: () => {} });
  t.after(store.close);
  return gateway(store);
}

async function refusal(entered: Promise<unknown>): Promise<LimitError> {
  const error = await entered.then(
    () => assert.fail('it was let in'),
    (fault: unknown) => fault,
  );
  assert.ok(error instanceof LimitError, String(error));
  return error;
}

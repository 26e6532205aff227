import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Admission, createAdmission } from '../../workers/admission.ts';
import { ready, scriptedService, startTestWorker } from './helpers.ts';

const soon = { timeoutMs: 10_000 };
const admissionOf = (concurrency: number, queue: number) =>
  createAdmission({ concurrency, queue, latencyMs: () => 500 });

/** Enters calls and notes in which order they get in; each leaves when told. */
function recorder(admission: Admission) {
  const order: string[] = [];
  const leaves: (() => void)[] = [];
  const enter = (principal: string, name = principal) =>
    admission.enter(principal, soon).then(leave => {
      order.push(name);
      leaves.push(leave);
    });
  const next = async () => {
    leaves.shift()?.();
    await new Promise(resolve => setImmediate(resolve));
  };
  return { order, enter, next };
}

test('so many at once, then a queue, then a refusal that says when to come back', async () => {
  const admission = admissionOf(2, 1);
  const { order, enter, next } = recorder(admission);
  await Promise.all([enter('a'), enter('b')]);
  const third = enter('c');
  assert.deepEqual([order, admission.queued], [['a', 'b'], 1]);
  await assert.rejects(admission.enter('d', soon), {
    code: 'queue_full',
    delivered: 'no',
    retryAfterMs: 500,
  });
  await next();
  await third;
  assert.deepEqual([order, admission.queued], [['a', 'b', 'c'], 0]);
});

test('places go round the callers that wait, whoever came first with however many', async () => {
  const { order, enter, next } = recorder(admissionOf(1, 100));
  void enter('greedy', 'g0');
  for (let i = 1; i <= 4; i += 1) void enter('greedy', `g${i}`);
  void enter('modest', 'm1');
  void enter('modest', 'm2');
  void enter('other', 'o1');
  for (let i = 0; i < 8; i += 1) await next();
  // Who had a place just now is the last of equals.
  assert.deepEqual(order, ['g0', 'm1', 'o1', 'g1', 'm2', 'g2', 'g3', 'g4']);
});

test('a free place goes to the caller with the fewest calls inside', async () => {
  const { order, enter, next } = recorder(admissionOf(3, 100));
  for (let i = 0; i < 6; i += 1) void enter('greedy', `g${i}`);
  void enter('modest', 'm1');
  void enter('modest', 'm2');
  for (let i = 0; i < 9; i += 1) await next();
  assert.deepEqual(order, ['g0', 'g1', 'g2', 'm1', 'm2', 'g3', 'g4', 'g5']);
});

test('who fills the queue locks nobody out: the newest call of the longest line gives way', async () => {
  const admission = admissionOf(1, 4);
  const leave = await admission.enter('greedy', soon);
  const waiting = Array.from({ length: 4 }, () => admission.enter('greedy', soon));
  const displaced = assert.rejects(waiting[3]!, { code: 'queue_full', delivered: 'no', retryAfterMs: 2500 });
  const modest = admission.enter('modest', soon);
  await displaced;
  await assert.rejects(admission.enter('greedy', soon), { code: 'queue_full' });
  assert.equal(admission.queued, 4);
  leave();
  (await modest)();
  for (const call of waiting.slice(0, 3)) (await call)();
  assert.equal(admission.queued, 0);
});

describe('who stops waiting leaves nothing behind', () => {
  test('time is up', async () => {
    const admission = admissionOf(1, 5);
    const leave = await admission.enter('a', soon);
    await assert.rejects(admission.enter('b', { timeoutMs: 5 }), { code: 'timeout', delivered: 'no' });
    assert.equal(admission.queued, 0);
    leave();
    assert.ok(await admission.enter('c', soon));
  });

  test('the client goes', async () => {
    const admission = admissionOf(1, 5);
    const leave = await admission.enter('a', soon);
    const gone = new AbortController();
    const waiting = admission.enter('b', { ...soon, signal: gone.signal });
    gone.abort();
    await assert.rejects(waiting, { code: 'cancelled', delivered: 'no' });
    leave();
    leave();
    const again = await admission.enter('c', soon);
    await assert.rejects(admissionOf(0, 0).enter('d', soon), { code: 'queue_full' });
    again();
  });
});

test('a worker takes no more calls into its server than it may, answers them all, and refuses what does not fit', async t => {
  const worker = await startTestWorker(t, scriptedService('', { concurrency: 2, queue: 3 }));
  await ready(worker);
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => worker.post('/execute', { command: 'slow', params: { ms: 100 } })),
  );
  const refused = answers.filter(({ status }) => status === 503);
  assert.equal(answers.filter(({ status }) => status === 200).length, 5);
  assert.deepEqual(
    [...new Set(refused.map(({ json }) => `${json.code} ${json.delivered}`))],
    ['queue_full no'],
  );
  assert.ok(refused.every(({ headers }) => Number(headers.get('retry-after')) >= 1));
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Breaker, createBreaker } from '../../mesh/breaker.ts';
import { MeshError } from '../../mesh/errors.ts';
import { until } from '../until.ts';

const fail = (breaker: Breaker, code: 'timeout' | 'forbidden' = 'timeout') =>
  breaker.run(() => Promise.reject(new MeshError(code))).catch((error: MeshError) => error.code);
const succeed = (breaker: Breaker) =>
  breaker.run(() => Promise.resolve('ok')).catch((error: MeshError) => error.code);

function breakerOf(t: { after(fn: () => void): void }, recoveryMs = 60_000) {
  const isFailure = (error: unknown) => error instanceof MeshError && error.code === 'timeout';
  const breaker = createBreaker({ failureThreshold: 3, recoveryMs, isFailure });
  t.after(breaker.close);
  return breaker;
}

test('only failures in a row open it: one success between them starts the count again', async t => {
  const breaker = breakerOf(t);
  for (const step of [fail, fail, succeed, fail, fail]) await step(breaker);
  assert.equal(breaker.state, 'closed');
  await fail(breaker);
  assert.equal(breaker.state, 'open');
});

test('however many successes came before, the threshold holds', async t => {
  const breaker = breakerOf(t);
  for (let i = 0; i < 500; i += 1) await succeed(breaker);
  for (let i = 0; i < 3; i += 1) await fail(breaker);
  assert.equal(breaker.state, 'open');
});

test('what is no failure of the server is passed on and not counted', async t => {
  const breaker = breakerOf(t);
  for (let i = 0; i < 5; i += 1) assert.equal(await fail(breaker, 'forbidden'), 'forbidden');
  assert.equal(breaker.state, 'closed');
});

test('open, it runs nothing and says when to come back', async t => {
  const breaker = breakerOf(t);
  for (let i = 0; i < 3; i += 1) await fail(breaker);
  const error = await breaker.run(() => assert.fail('it ran')).catch((fault: MeshError) => fault);
  assert.ok(error instanceof MeshError);
  assert.deepEqual([error.code, error.delivered], ['circuit_open', 'no']);
  assert.ok((error.retryAfterMs ?? 0) > 50_000);
});

test('a probe that tells nothing of the server leaves it open, and the next one is let through', async t => {
  const breaker = breakerOf(t, 20);
  for (let i = 0; i < 3; i += 1) await fail(breaker);
  const halfOpen = () => breaker.state === 'half-open';
  await until(halfOpen);
  assert.equal(await fail(breaker, 'forbidden'), 'forbidden');
  assert.equal(breaker.state, 'open');
  await until(halfOpen);
  assert.equal(await succeed(breaker), 'ok');
  assert.equal(breaker.state, 'closed');
});

test('a call from before it opened is no probe', async t => {
  const breaker = breakerOf(t, 20);
  const slow = Promise.withResolvers<string>();
  const straggler = breaker.run(() => slow.promise);
  for (let i = 0; i < 3; i += 1) await fail(breaker);
  await until(() => breaker.state === 'half-open');
  slow.resolve('late');
  assert.equal(await straggler, 'late');
  assert.equal(breaker.state, 'half-open');
});

test('after the recovery time one probe goes through: its success closes, its failure opens again', async t => {
  const breaker = breakerOf(t, 30);
  for (let i = 0; i < 3; i += 1) await fail(breaker);
  const halfOpen = async () => {
    while (breaker.state !== 'half-open') await new Promise(resolve => setTimeout(resolve, 5));
  };
  await halfOpen();
  let release = () => {};
  const probe = breaker.run(
    () => new Promise<void>((_resolve, reject) => (release = () => reject(new MeshError('timeout')))),
  );
  assert.equal(await succeed(breaker), 'circuit_open');
  release();
  await assert.rejects(probe);
  assert.equal(breaker.state, 'open');
  await halfOpen();
  assert.equal(await succeed(breaker), 'ok');
  assert.equal(breaker.state, 'closed');
});

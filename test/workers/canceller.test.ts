import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Canceller, type CancelSignal, toAbortSignal } from '../../workers/canceller.ts';

interface Made {
  signal: CancelSignal;
  abort(): void;
}

const KINDS: [string, () => Made][] = [
  [
    'an AbortController',
    () => {
      const controller = new AbortController();
      return { signal: controller.signal, abort: () => controller.abort() };
    },
  ],
  [
    'a Canceller',
    () => {
      const canceller = new Canceller();
      return { signal: canceller, abort: () => canceller.abort() };
    },
  ],
];

for (const [kind, make] of KINDS) {
  describe(`what calls expect of ${kind}`, () => {
    test('its listeners are told once, in their order, and it is aborted by then', () => {
      const { signal, abort } = make();
      const heard: string[] = [];
      signal.addEventListener('abort', () => heard.push(`first ${signal.aborted}`), { once: true });
      signal.addEventListener('abort', () => heard.push('second'), { once: true });
      assert.equal(signal.aborted, false);
      abort();
      abort();
      assert.deepEqual(heard, ['first true', 'second']);
    });

    test('who was removed, or came too late, is not told', () => {
      const { signal, abort } = make();
      const heard: string[] = [];
      const removed = () => heard.push('removed');
      const stays = () => {
        heard.push('stays');
        signal.removeEventListener('abort', stays);
      };
      signal.addEventListener('abort', removed, { once: true });
      signal.addEventListener('abort', stays, { once: true });
      signal.removeEventListener('abort', removed);
      signal.removeEventListener('abort', () => {});
      abort();
      signal.addEventListener('abort', () => heard.push('late'), { once: true });
      assert.deepEqual(heard, ['stays']);
    });

    test('as an AbortSignal it is aborted with it, before or after', () => {
      const { signal, abort } = make();
      const before = toAbortSignal(signal);
      assert.equal(before.aborted, false);
      abort();
      assert.equal(before.aborted, true);
      assert.equal(toAbortSignal(signal).aborted, true);
    });
  });
}

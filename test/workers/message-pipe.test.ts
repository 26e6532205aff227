import assert from 'node:assert/strict';
import { PassThrough, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Chunk } from '../../mesh/chunk.ts';
import { type LongText, wireText } from '../../mesh/wire-text.ts';
import { MessagePipe } from '../../workers/child/message-pipe.ts';
import { asRead } from '../as-read.ts';

const LONG = `"${'x'.repeat(20_000)}"`;

test('messages leave in their order, whether or not they wait for others', async () => {
  const stdin = new PassThrough();
  const pipe = new MessagePipe(stdin);
  const long = wireText([Buffer.from(LONG.slice(0, 9000)), Buffer.from(LONG.slice(9000))], []);
  const sent = [
    ['1', true],
    ['2', false],
    [long, true],
    ['"\u2028"', true],
    ['3', false],
  ] as const;
  for (const [line, alone] of sent) assert.equal(pipe.write(line, alone), true);
  await turn();
  assert.equal(pipe.write('4', true), true);
  stdin.end();
  assert.equal(await text(stdin), `1\n2\n${LONG}\n"\\u2028"\n3\n4\n`);
  assert.equal(pipe.write('5', true), false, 'nobody reads it');
});

test('one message alone is there at once, others at the end of the turn, together', async () => {
  const stdin = new PassThrough();
  const pipe = new MessagePipe(stdin);
  pipe.write('1', true);
  assert.equal(String(stdin.read()), '1\n');
  pipe.write('2', false);
  pipe.write('3', false);
  assert.equal(stdin.read(), null);
  await turn();
  assert.equal(String(stdin.read()), '2\n3\n');
});

test('a long message is kept until the pipe has taken it, and for good when it broke', async () => {
  const written: (() => void)[] = [];
  const stdin = new Writable({ writev: (_chunks, done) => written.push(done) });
  const chunks = [1, 2].map(() => asRead(LONG));
  const [first, second] = chunks.map(bytes => wireText([bytes], [new Chunk(bytes)]) as LongText);
  assert.ok(first && second);
  const pipe = new MessagePipe(stdin);
  for (const text of [first, second]) {
    assert.equal(pipe.write(text, true), true);
    text.release();
  }
  assert.equal(first.toString(), LONG, 'it is still being written');
  written.shift()?.();
  await turn();
  assert.equal(chunks[0]?.length, 0);
  stdin.on('error', () => {}).destroy(new Error('the pipe broke'));
  await turn();
  assert.equal(second.toString(), LONG, 'the system may still be reading it');
});

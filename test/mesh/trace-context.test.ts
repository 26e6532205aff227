import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { formatTraceparent, nextSpan, parseTraceContext } from '../../mesh/trace-context.ts';
import { tracingSettings } from '../../mesh/trace-settings.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';
const VALID = `00-${TRACE}-${SPAN}-01`;

const parents: { desc: string; value: unknown; sampled?: boolean }[] = [
  { desc: 'version 00', value: VALID, sampled: true },
  { desc: 'not sampled', value: `00-${TRACE}-${SPAN}-00`, sampled: false },
  { desc: 'other flags', value: `00-${TRACE}-${SPAN}-fe`, sampled: false },
  { desc: 'sampled among other flags', value: `00-${TRACE}-${SPAN}-03`, sampled: true },
  { desc: 'a later version', value: `cc-${TRACE}-${SPAN}-01`, sampled: true },
  {
    desc: 'a later version with more fields',
    value: `cc-${TRACE}-${SPAN}-01-what-the-future`,
    sampled: true,
  },
  { desc: 'version 00 with more fields', value: `${VALID}-x` },
  { desc: 'a later version with more characters in the flags', value: `cc-${TRACE}-${SPAN}-01x` },
  { desc: 'version ff', value: `ff-${TRACE}-${SPAN}-01` },
  { desc: 'no trace id', value: `00-${'0'.repeat(32)}-${SPAN}-01` },
  { desc: 'no span id', value: `00-${TRACE}-${'0'.repeat(16)}-01` },
  { desc: 'upper case', value: VALID.toUpperCase() },
  { desc: 'a short trace id', value: `00-${TRACE.slice(1)}-${SPAN}-01` },
  { desc: 'blanks', value: ` ${VALID}` },
  { desc: 'a line end', value: `${VALID}\n` },
  { desc: 'two values', value: `${VALID}, ${VALID}` },
  { desc: 'an endless one', value: `cc-${TRACE}-${SPAN}-01-${'x'.repeat(1e6)}` },
  { desc: 'no string', value: [VALID] },
  { desc: 'nothing', value: undefined },
];

for (const { desc, value, sampled } of parents) {
  test(`traceparent, ${desc}: ${sampled === undefined ? 'none' : 'a context'}`, () => {
    const context = parseTraceContext(value);
    const wanted = { traceId: TRACE, spanId: SPAN, sampled, state: '' };
    assert.deepEqual(context, sampled === undefined ? undefined : wanted);
  });
}

const stateOf = (state: unknown) => parseTraceContext(VALID, state)?.state;
const member = (key: string, length: number) => `${key}=${'x'.repeat(length - key.length - 1)}`;

const states: { desc: string; value: unknown; want: string }[] = [
  {
    desc: 'as it should be',
    value: 'rojo=00f067aa0ba902b7,congo=t61rcWkgMzE',
    want: 'rojo=00f067aa0ba902b7,congo=t61rcWkgMzE',
  },
  { desc: 'blanks and empty members', value: ' a=1 ,, b=2\t', want: 'a=1,b=2' },
  { desc: 'a tenant', value: 'fw529a3039@dt=FfFf', want: 'fw529a3039@dt=FfFf' },
  { desc: 'no value', value: 'a', want: '' },
  { desc: 'an upper-case key', value: 'A=1', want: '' },
  { desc: 'an equals sign in a value', value: 'a=1=2', want: '' },
  { desc: 'a quote that would leave the message’s string', value: 'a="\\', want: 'a="\\' },
  { desc: 'a control character', value: 'a=\u0001', want: '' },
  { desc: 'a line end', value: 'a=1\nb=2', want: '' },
  { desc: 'something that is no ASCII', value: 'a=é', want: '' },
  { desc: 'a value of 256 characters', value: member('a', 258), want: member('a', 258) },
  { desc: 'a value of 257 characters', value: member('a', 259), want: '' },
  { desc: '33 members', value: Array.from({ length: 33 }, (_, i) => `k${i}=1`).join(), want: '' },
  {
    desc: 'more than 512 characters: the long members go first',
    value: `${member('a', 200)},${member('b', 120)},${member('c', 120)},${member('d', 120)}`,
    want: `${member('b', 120)},${member('c', 120)},${member('d', 120)}`,
  },
  {
    desc: 'more than 512 characters of short members: the last go',
    value: 'abcdefgh'
      .split('')
      .map(key => member(key, 100))
      .join(),
    want: 'abcde'
      .split('')
      .map(key => member(key, 100))
      .join(),
  },
  { desc: 'an endless one', value: 'a=1,'.repeat(1e6), want: '' },
  { desc: 'no string', value: { a: 1 }, want: '' },
];

for (const { desc, value, want } of states) {
  test(`tracestate, ${desc}`, () => assert.equal(stateOf(value), want));
}

test('what is written can be read, and a state is never longer than 512 characters', () => {
  fc.assert(
    fc.property(fc.boolean(), fc.string({ maxLength: 2000 }), (sampled, state) => {
      const made = nextSpan(undefined, sampled);
      const read = parseTraceContext(formatTraceparent(made), state);
      assert.deepEqual(read && { ...read, state: '' }, made);
      assert.ok((read?.state.length ?? 0) <= 512);
    }),
  );
});

test('a next span stays in its trace, with its state, under an id of its own', () => {
  const parent = parseTraceContext(VALID, 'a=1');
  const { spanId, ...next } = nextSpan(parent, false);
  assert.deepEqual(next, { traceId: TRACE, sampled: false, state: 'a=1' });
  assert.match(spanId, /^[0-9a-f]{16}$/);
  assert.notEqual(spanId, SPAN);
});

describe('settings', () => {
  const ON = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' };
  const want = { url: 'http://collector:4318/v1/traces', ratio: 1, followCaller: true, flushMs: 5000 };

  test('off, unless there is somewhere to send to', () => {
    assert.equal(tracingSettings({}), undefined);
    assert.equal(tracingSettings({ OTEL_EXPORTER_OTLP_ENDPOINT: '' }), undefined);
    assert.equal(tracingSettings({ ...ON, OTEL_SDK_DISABLED: 'true' }), undefined);
    assert.equal(tracingSettings({ ...ON, OTEL_TRACES_EXPORTER: 'none' }), undefined);
    assert.deepEqual(tracingSettings(ON), want);
  });

  test('the address for traces is taken as it is, the general one is completed', () => {
    const url = (env: Record<string, string>) => tracingSettings(env)?.url;
    assert.equal(url({ OTEL_EXPORTER_OTLP_ENDPOINT: 'https://c/base/' }), 'https://c/base/v1/traces');
    assert.equal(url({ ...ON, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://t:1/x' }), 'http://t:1/x');
  });

  const samplers: { name: string; argument?: string; ratio: number; followCaller: boolean }[] = [
    { name: 'always_on', ratio: 1, followCaller: false },
    { name: 'parentbased_always_off', ratio: 0, followCaller: true },
    { name: 'parentbased_traceidratio', argument: '0.25', ratio: 0.25, followCaller: true },
    { name: 'traceidratio', argument: '0', ratio: 0, followCaller: false },
  ];
  for (const { name, argument, ratio, followCaller } of samplers) {
    test(`sampler ${name}`, () => {
      const env = { ...ON, OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: argument };
      assert.deepEqual(tracingSettings(env), { ...want, ratio, followCaller });
    });
  }

  const wrong = {
    OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318',
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'nonsense',
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    OTEL_TRACES_SAMPLER: 'sometimes',
    OTEL_BSP_SCHEDULE_DELAY: 'soon',
  };
  for (const [name, value] of Object.entries(wrong)) {
    test(`a wrong ${name} is named`, () => {
      assert.throws(() => tracingSettings({ ...ON, [name]: value }), { message: new RegExp(`^${name}: `) });
    });
  }
  test('a wrong share is named', () => {
    const env = { ...ON, OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '2' };
    assert.throws(() => tracingSettings(env), /^Error: OTEL_TRACES_SAMPLER_ARG: "2"/);
  });
});

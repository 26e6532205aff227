import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeStatus, isComplete, watchStatus } from '../../cli/status.ts';
import { widthOf } from '../../cli/table.ts';
import type { FleetStatus, InstanceRow, ServiceRow } from '../../workers/fleet/status.ts';

function instance(service: string, index: number, fields: Partial<InstanceRow> = {}): InstanceRow {
  return {
    service,
    slot: `${service}#${index}`,
    id: `mcp-${service}-h-${9000 + index}`,
    address: `127.0.0.1:${9000 + index}`,
    pid: 100 + index,
    state: 'ready',
    reason: '',
    era: 'modern',
    in_flight: 3,
    queue: 12,
    p50_ms: 4.25,
    p95_ms: 1234,
    rss_bytes: 90 * 1_048_576,
    restarts: 1,
    server_restarts: 2,
    breaker: 'closed',
    uptime_s: 7384,
    last_error: null,
    ...fields,
  };
}

function service(name: string, fields: Partial<ServiceRow> = {}): ServiceRow {
  return { service: name, wanted: 1, ready: 1, scaling: null, activator: null, rollout: null, ...fields };
}

function status(fields: Partial<FleetStatus> = {}): FleetStatus {
  return {
    pid: 4711,
    started_at: new Date(Date.now() - 65_000).toISOString(),
    registry: { path: 'r.yaml', error: null },
    services: [service('echo')],
    instances: [instance('echo', 0)],
    ...fields,
  };
}

test('one row for each instance, sorted, with all that is known of it', () => {
  const lines = describeStatus(
    status({
      services: [service('zeta'), service('echo', { wanted: 3, ready: 3 })],
      instances: [instance('zeta', 0), instance('echo', 10), instance('echo', 2), instance('echo', 1)],
    }),
  );
  assert.deepEqual(
    lines.slice(0, 5).map(line => line.split(/ {2,}/)[1]),
    ['INSTANCE', 'mcp-echo-h-9001', 'mcp-echo-h-9002', 'mcp-echo-h-9010', 'mcp-zeta-h-9000'],
  );
  assert.match(
    lines[1] ?? '',
    /^echo +mcp-echo-h-9001 +127.0.0.1:9001 +ready +modern +3 +12 +4.3 ms +1234 ms +90 MB +1\+2 +closed +2h3m$/,
  );
  assert.match(lines.at(-1) ?? '', /^4 of 4 instances ready · supervisor 4711, up 1m\ds · r\.yaml$/);
});

test('what is not known yet is a dash, and the slot names it', () => {
  const unknown = {
    id: null,
    address: null,
    era: null,
    in_flight: null,
    queue: null,
    p50_ms: null,
    p95_ms: null,
  };
  const young = { rss_bytes: null, server_restarts: null, breaker: null, uptime_s: null, pid: null };
  const row = instance('echo', 0, {
    ...unknown,
    ...young,
    state: 'waiting',
    last_error: 'child exits with 3',
  });
  const [, line = ''] = describeStatus(status({ instances: [row] }));
  assert.match(line, /^echo +echo#0 +– +waiting +– +– +– +– +– +– +1 +– +– +child exits with 3$/);
});

test('a service that wants more says why; the registry fault comes first', () => {
  const broken = status({
    registry: { path: 'r.yaml', error: 'r.yaml:3: unknown key\nr.yaml:4: \u001b[31mnonsense' },
    services: [
      service('down', { wanted: 3, ready: 0 }),
      service('idle', { wanted: 0, ready: 0, activator: { offered: true, held: 2, failure: null } }),
      service('never', {
        wanted: 0,
        ready: 0,
        activator: { offered: false, held: 0, failure: 'no free port' },
      }),
      service('roll', { rollout: 'waits for roll#1' }),
      service('new', { wanted: 1, ready: 0 }),
    ],
    instances: [
      instance('down', 0, { state: 'parked', reason: 'child exits with 3' }),
      instance('down', 1, { state: 'parked', reason: 'child exits with 3' }),
      instance('down', 2, { state: 'backoff', reason: '', last_error: 'port taken' }),
    ],
  });
  const lines = describeStatus(broken);
  assert.match(lines[0] ?? '', /^! the registry file has a fault/);
  assert.deepEqual(lines.slice(1, 3), ['    r.yaml:3: unknown key', '    r.yaml:4: nonsense']);
  assert.deepEqual(
    lines.filter(line => /^(! | {2})[a-z]+: /.test(line)),
    [
      '! down: 0 of 3 instances ready; parked: child exits with 3; backoff: port taken',
      '  idle: no instance; the first call starts one, which 2 calls wait for',
      '! never: the first call cannot start it: no free port',
      '! new: 0 of 1 instances ready; the others have not been started yet',
      '! roll: rolling restart: waits for roll#1',
    ],
  );
  for (const line of describeStatus(broken, 60)) assert.ok(widthOf(line) <= 60, line);
});

test('complete is what has all it wants', () => {
  assert.equal(isComplete(status()), true);
  assert.equal(isComplete(status({ registry: { path: '', error: 'bad' } })), false);
  assert.equal(isComplete(status({ services: [service('a', { wanted: 2 })] })), false);
  const activator = { offered: false, held: 0, failure: 'no port' };
  assert.equal(isComplete(status({ services: [service('a', { wanted: 0, ready: 0, activator })] })), false);
});

test('watching shows it anew, outlives a supervisor that is away, and fits the screen', async () => {
  const end = new AbortController();
  const written: string[] = [];
  const many = Array.from({ length: 50 }, (_, i) => instance('echo', i));
  let looks = 0;
  const control = {
    async status() {
      looks += 1;
      if (looks === 2) throw new Error('no supervisor is running');
      if (looks === 3) setImmediate(() => end.abort());
      return status({ instances: many });
    },
  };
  const screen = { columns: 80, rows: 20, write: (text: string) => written.push(text) };
  await watchStatus(control, screen, end.signal, 1);
  assert.equal(looks, 3);
  const [clear, first = '', second = '', third] = written;
  assert.equal(clear, '\u001b[H\u001b[2J');
  assert.equal(third, first);
  assert.ok(first.startsWith('\u001b[HSERVICE') && first.endsWith('\u001b[K\n\u001b[J'));
  assert.equal(first.split('\n').length - 1, 19);
  assert.equal(second, '\u001b[Hno supervisor is running\u001b[K\n\u001b[J');
});

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createDiscovery, type Discovery } from '../../kong-plugin/discovery.ts';
import type { SavedTable, TableFile } from '../../kong-plugin/table-file.ts';
import { type Consul, ConsulError, type Instance } from '../../mesh/consul.ts';

/** How far Consul's answers are believed. Consul is scripted here: what matters is the order of its answers. */

const NEVER_MS = 1e9;
const KINDS = { p: 'passing', c: 'critical', u: 'warning' } as const;

interface Follower {
  onChange(value: unknown): void;
  onError(error: Error): void;
}

class ScriptedConsul {
  readonly followers = new Map<string, Follower>();
  answeredAt = 0;

  readonly consul = {
    watchServices: (onChange: unknown, onError: unknown) => this.#watch('', onChange, onError),
    watchDefinitions: (onChange: unknown, onError: unknown) => this.#watch('kv', onChange, onError),
    watchInstances: (service: string, onChange: unknown, onError: unknown) =>
      this.#watch(service, onChange, onError),
  } as unknown as Consul;

  #watch(what: string, onChange: unknown, onError: unknown) {
    this.followers.set(what, { onChange, onError } as Follower);
    return { answeredAt: () => this.answeredAt, close: () => void this.followers.delete(what) };
  }

  /** The catalogue lists these services. */
  services(...names: string[]): void {
    this.followers.get('')?.onChange(new Map(names.map(name => [`mcp-${name}`, ['mcp']])));
  }

  /** `p`: passes, `c`: critical with a reason, `u`: not checked yet; `-`: not there. */
  instances(name: string, states: string): void {
    this.followers.get(`mcp-${name}`)?.onChange(instancesOf(name, states));
  }

  definitions(...names: string[]): void {
    this.followers.get('kv')?.onChange(new Map(names.map(name => [name, {}])));
  }

  fail(...what: string[]): void {
    for (const name of what) this.followers.get(name)?.onError(new ConsulError('gone'));
  }

  failAll(): void {
    this.fail(...this.followers.keys());
  }
}

function instancesOf(name: string, states: string): Instance[] {
  return [...states].flatMap((state, i) => {
    const status = KINDS[state as keyof typeof KINDS];
    if (status === undefined) return [];
    const id = `mcp-${name}-${i}`;
    const reason = { passing: '', critical: 'broken', warning: `${id}:http is warning` }[status];
    const common = { service: `mcp-${name}`, node: 'n', address: '10.0.0.1', port: i, tags: ['mcp'] };
    return [
      { ...common, id, meta: { mcp_server: name }, weights: { passing: 1, warning: 1 }, status, reason },
    ];
  });
}

function start(t: TestContext, { graceMs = NEVER_MS, saved }: { graceMs?: number; saved?: SavedTable } = {}) {
  const script = new ScriptedConsul();
  const told: string[] = [];
  let written: SavedTable | undefined;
  const file: TableFile = {
    load: () => saved,
    save(read) {
      written = read();
    },
    close() {},
  };
  const discovery = createDiscovery({
    consul: script.consul,
    onInstances: ids => told.push(`${ids.size}`),
    onError: () => told.push('error'),
    onRecover: () => told.push('recovered'),
    file,
    graceMs,
  });
  t.after(() => discovery.close());
  return { script, discovery, told, written: () => written };
}

/** `a:pp b:c`; after what follows from the answers has happened. */
async function shownBy(discovery: Discovery): Promise<string> {
  await pause(5);
  const services = discovery
    .list()
    .map(
      ({ name, instances }) =>
        `${name}:${instances.map(({ status }) => (status === 'warning' ? 'u' : status[0])).join('')}`,
    );
  return services.join(' ');
}

/** Two services with two instances each that pass. */
async function startFilled(t: TestContext, options = {}) {
  const parts = start(t, options);
  const { script } = parts;
  script.services('a', 'b');
  script.definitions('a', 'b');
  for (const name of ['a', 'b']) script.instances(name, 'pp');
  assert.equal(await shownBy(parts.discovery), 'a:pp b:pp');
  return parts;
}

test('an instance or a service that leaves is believed at once', async t => {
  const { script, discovery } = await startFilled(t);
  script.definitions();
  script.instances('a', '-p');
  assert.equal(await shownBy(discovery), 'a:p b:pp');
  script.instances('a', '');
  script.services('b');
  assert.equal(await shownBy(discovery), 'a: b:pp');
  assert.deepEqual([...script.followers.keys()], ['', 'kv', 'mcp-b']);
});

test('everything that is gone at once is kept, on an unbroken line, too', async t => {
  for (const [desc, forget] of [
    ['the catalogue first', (script: ScriptedConsul) => script.services()],
    ['the services first', () => {}],
  ] as const) {
    const { script, discovery } = await startFilled(t);
    forget(script);
    for (const name of ['a', 'b']) script.instances(name, '');
    script.services();
    script.definitions();
    assert.equal(await shownBy(discovery), 'a:pp b:pp', desc);
    // One service is back, then the other one, instance by instance.
    script.services('a');
    script.instances('a', 'u');
    assert.equal(await shownBy(discovery), 'a:pp b:pp', desc);
    script.instances('a', 'pp');
    script.services('a', 'b');
    script.instances('b', 'p');
    assert.equal(await shownBy(discovery), 'a:pp b:pp', desc);
    // What came back may leave again, at once.
    script.instances('a', 'p');
    assert.equal(await shownBy(discovery), 'a:p b:pp', desc);
  }
});

test('an agent that forgets its services one by one does not take the last ones', async t => {
  const { script, discovery } = await startFilled(t);
  script.instances('b', 'p');
  script.services('a');
  script.instances('a', 'p');
  await pause(5);
  script.instances('a', '');
  script.services();
  assert.equal(await shownBy(discovery), 'a:p b:');
});

test('the only instance there is may leave', async t => {
  const { script, discovery } = start(t);
  script.services('a');
  script.definitions('a');
  script.instances('a', 'p');
  assert.equal(await shownBy(discovery), 'a:p');
  script.instances('a', '');
  script.services();
  script.definitions();
  assert.equal(await shownBy(discovery), '');
});

test('a Consul that comes back with less is believed after the grace period', async t => {
  const { script, discovery, told } = await startFilled(t, { graceMs: 300 });
  script.failAll();
  assert.equal(await shownBy(discovery), 'a:pp b:pp');
  script.services('a');
  assert.equal(await shownBy(discovery), 'a:pp b:pp');
  script.instances('a', 'u');
  script.instances('b', '');
  assert.ok(!told.includes('recovered'));
  script.definitions('a');
  assert.equal(told.at(-1), 'recovered');
  assert.equal(await shownBy(discovery), 'a:pp b:pp');
  while ((await shownBy(discovery)) !== 'a:u') await pause(10);
  assert.deepEqual([...script.followers.keys()], ['', 'kv', 'mcp-a']);
});

test('what Consul says of an instance after an interruption is believed at once', async t => {
  const { script, discovery } = await startFilled(t);
  script.failAll();
  script.services('a', 'b');
  script.definitions('a', 'b');
  script.instances('a', 'cp');
  script.instances('b', 'pp');
  assert.equal(await shownBy(discovery), 'a:cp b:pp');
});

test('a table from disk serves until each service’s own answer', async t => {
  const services = new Map(['a', 'b', 'c'].map(name => [`mcp-${name}`, instancesOf(name, 'pp')]));
  const saved = { answeredAt: Date.now() - 60_000, definitions: new Map([['a', { x: 1 }]]), services };
  const { script, discovery, told } = start(t, { saved });
  assert.deepEqual(told, [], 'nobody is told before createDiscovery has returned');
  assert.equal(await shownBy(discovery), 'a:pp b:pp c:pp');
  assert.deepEqual(told, ['6']);
  assert.ok(discovery.age(Date.now()) >= 60);
  script.services('a', 'b');
  assert.equal(await shownBy(discovery), 'a:pp b:pp');
  script.instances('a', 'c');
  assert.equal(await shownBy(discovery), 'a:c b:pp');
  assert.deepEqual(discovery.find('a')?.definition, { x: 1 });
  script.answeredAt = Date.now();
  assert.ok(discovery.age(Date.now()) < 60);
});

test('a table from disk outlives a Consul that knows nothing', async t => {
  const services = new Map([['mcp-a', instancesOf('a', 'p')]]);
  const { script, discovery, written } = start(t, {
    saved: { answeredAt: 0, definitions: new Map(), services },
    graceMs: 300,
  });
  script.services();
  assert.equal(await shownBy(discovery), 'a:p');
  while ((await shownBy(discovery)) !== '') await pause(10);
  assert.equal(written()?.services.size, 0);
});

test('with a table from disk the first error is enough to begin', async t => {
  const saved = {
    answeredAt: 0,
    definitions: new Map(),
    services: new Map([['mcp-a', instancesOf('a', 'p')]]),
  };
  const [cold, warm] = [start(t), start(t, { saved })];
  const readyOf = async ({ discovery }: typeof cold) => {
    const waiting = pause(50).then(() => 'waits');
    return await Promise.race([discovery.ready(60_000).then(() => 'ready'), waiting]);
  };
  assert.deepEqual([await readyOf(cold), await readyOf(warm)], ['waits', 'waits']);
  for (const { script } of [cold, warm]) script.fail('kv');
  assert.deepEqual([await readyOf(cold), await readyOf(warm)], ['waits', 'ready']);
  cold.script.definitions();
  cold.script.services('a');
  assert.equal(await readyOf(cold), 'waits');
  cold.script.instances('a', 'p');
  assert.equal(await readyOf(cold), 'ready');
  assert.equal(cold.told.at(-1), '1');
});

test('many answers in one turn are told once', async t => {
  const { script, discovery, told } = await startFilled(t);
  told.length = 0;
  for (const name of ['a', 'b']) script.instances(name, 'ppp');
  script.instances('a', 'pppp');
  assert.equal(await shownBy(discovery), 'a:pppp b:ppp');
  assert.deepEqual(told, ['7']);
});

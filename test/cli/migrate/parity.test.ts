import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { startConsul } from '../../../kong/dev/consul.ts';
import { collectCleanUps, type FleetHarness, startFleetHarness } from '../../e2e/fleet-harness.ts';
import { folderFor, meshWith } from '../helpers.ts';
import { DESCRIBED, type Described, describedEntry, describedService, writeMcpJson } from './described.ts';

const [now, find, wipe] = DESCRIBED.tools;
const { serverInfo, capabilities, answers } = DESCRIBED;

/** What the old server says otherwise, and the differences that must come of it: kind, name and path. */
const PLANTED: { old: Partial<Record<keyof Described, unknown>>; found: string[] }[] = [
  {
    old: { serverInfo: { ...serverInfo, version: '0.9.0' } },
    found: ['server-info server /version'],
  },
  {
    old: { capabilities: { ...capabilities, completions: {} } },
    found: ['capabilities completions /completions'],
  },
  { old: { instructions: 'Ask her.' }, found: ['instructions server '] },
  { old: { tools: [...DESCRIBED.tools, { ...wipe, name: 'gone' }] }, found: ['tool-missing gone '] },
  { old: { tools: [now, find] }, found: ['tool-added wipe '] },
  {
    old: {
      tools: [
        now,
        find,
        { ...wipe, inputSchema: { type: 'object', properties: { all: { type: 'boolean' } }, required: [] } },
      ],
    },
    found: ['tool-schema wipe /inputSchema/properties/all'],
  },
  {
    old: { tools: [now, find, { ...wipe, description: 'Wipes' }] },
    found: ['tool-description wipe /description'],
  },
  {
    old: { tools: [now, find, { ...wipe, annotations: { destructiveHint: true } }] },
    found: ['tool-changed wipe /annotations'],
  },
  { old: { prompts: [] }, found: ['prompt-added greet '] },
  {
    old: { prompts: [{ ...DESCRIBED.prompts[0], arguments: [{ name: 'who', required: false }] }] },
    found: ['prompt-changed greet /arguments/0/required'],
  },
  {
    old: { resources: [{ ...DESCRIBED.resources[0], mimeType: 'text/html' }] },
    found: ['resource-changed file:///a /mimeType'],
  },
  { old: { resourceTemplates: [] }, found: ['template-added file:///{path} '] },
  {
    old: { answers: { ...answers, now: '{"zone":"CET","time":"NOW"}' } },
    found: ['answer now /result/content/0/text/zone'],
  },
  {
    old: { answers: { ...answers, find: 'found x at NOW in part' } },
    found: ['answer find /result/content/0/text'],
  },
  { old: { era: 'modern' }, found: ['era server '] },
];

describe('mesh migrate: a parity run', { concurrency: 2 }, () => {
  const cleanUps = collectCleanUps();
  let harness: FleetHarness;
  before(async () => {
    const consul = await startConsul();
    cleanUps.add(() => consul.close());
    harness = await startFleetHarness(cleanUps.add, {
      consulUrl: consul.url,
      services: [
        describedService('same', DESCRIBED),
        describedService('new-era', { ...DESCRIBED, era: 'modern' }),
      ],
    });
  });
  after(() => cleanUps.run());

  const migrate = (t: TestContext, server: object, service: string, ...more: string[]) => {
    const config = writeMcpJson(folderFor(t), { [service]: describedEntry(server as Described) });
    const env = { MESH_URL: harness.urls[0] ?? '' };
    return meshWith({ env }, 'migrate', service, '--config', config, '--calls', '3', ...more);
  };

  for (const era of ['legacy', 'modern'])
    test(`finds nothing where nothing differs but what differs from run to run: ${era}`, async t => {
      const service = era === 'modern' ? 'new-era' : 'same';
      const { code, out, err } = await migrate(
        t,
        { ...DESCRIBED, era },
        service,
        '--json',
        '--probe',
        'wipe={"a":1}',
      );
      assert.deepEqual([code, err], [0, '']);
      const { differences, probes, latency, old } = JSON.parse(out);
      assert.deepEqual([differences, old.era], [[], era]);
      assert.deepEqual(
        probes.map(({ tool, args, from, volatile }: Record<string, unknown>) => [tool, args, from, volatile]),
        [
          ['wipe', { a: 1 }, 'option', []],
          ['now', {}, 'hints', ['/result/content/0/text/time']],
          ['find', { text: 'x' }, 'hints', ['/result/content/0/text']],
        ],
      );
      assert.deepEqual([latency.what, latency.calls], ['wipe', 3]);
      assert.ok(latency.oldMs > 0 && latency.newMs > 0);
    });

  for (const { old, found } of PLANTED)
    test(`finds ${found.join(', ')}`, async t => {
      const { code, out } = await migrate(t, { ...DESCRIBED, ...old }, 'same', '--json');
      const { differences } = JSON.parse(out);
      const shown = differences.map(
        ({ kind, name, path }: Record<string, string>) => `${kind} ${name} ${path}`,
      );
      assert.deepEqual([code, shown], [1, found]);
    });

  test('says in words what differs; another order and other keys first are none', async t => {
    const tools = [find, now, { inputSchema: wipe?.inputSchema, description: 'Wipes', name: 'wipe' }];
    const { code, out } = await migrate(t, { ...DESCRIBED, tools }, 'same');
    assert.equal(code, 1);
    assert.match(out, /^different tool-description\n {4}wipe \/description: "Wipes" → "Deletes"$/m);
    assert.match(out, /^note {6}the tools come in another order$/m);
    assert.match(
      out,
      /^volatile {2}now: two runs of the old way differ at \/result\/content\/0\/text\/time/m,
    );
    assert.match(out, /^latency {3}.+, 3 calls each way: p50 [\d.]+ ms → [\d.]+ ms \([+-][\d.]+ ms\)$/m);
    assert.match(out, /^1 differences?$/m);
  });

  test('takes the old way from the registry where no file is given', async t => {
    const registry = join(folderFor(t), 'registry.yaml');
    const service = { name: 'same', ...describedEntry(DESCRIBED) };
    writeFileSync(registry, JSON.stringify({ mcp_services: [service] }));
    const env = { MESH_URL: harness.urls[0] ?? '' };
    const { code, out, err } = await meshWith({ env }, 'migrate', 'same', '--registry', registry);
    assert.deepEqual([code, err], [0, '']);
    assert.match(out, /^no differences$/m);
  });

  test('says who does not answer, and what is missing', async t => {
    const env = { MESH_URL: harness.urls[0] ?? '' };
    const folder = folderFor(t);
    const config = writeMcpJson(folder, { same: { command: 'no-such-program' }, other: {} });
    const broken = await meshWith({ env }, 'migrate', 'same', '--config', config);
    assert.equal(broken.code, 1);
    assert.match(broken.err, /the old server: child cannot be started \(command not found/);
    const unknown = await meshWith({ env }, 'migrate', 'some', '--config', config);
    assert.deepEqual(
      [unknown.code, /no server "some"; did you mean "same"\?/.test(unknown.err)],
      [2, true],
      unknown.err,
    );
    const entry = { ...(describedEntry(DESCRIBED) as object), env: { SERVER: '${NOT_SET}' } };
    const unset = await meshWith(
      { env },
      'migrate',
      'same',
      '--config',
      writeMcpJson(folder, { same: entry }),
    );
    assert.match(unset.err, /same: the variable NOT_SET is not set/);
    const away = await meshWith(
      { env: { MESH_URL: 'http://127.0.0.1:9' } },
      'migrate',
      'same',
      '--config',
      writeMcpJson(folder, { same: describedEntry(DESCRIBED) }),
    );
    assert.match(away.err, /no gateway listens at/);
  });
});

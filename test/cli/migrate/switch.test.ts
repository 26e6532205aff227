import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startConsul } from '../../../kong/dev/consul.ts';
import { collectCleanUps, type FleetHarness, startFleetHarness } from '../../e2e/fleet-harness.ts';
import { startMeshClient } from '../connect/stdio-client.ts';
import { folderFor, meshWith } from '../helpers.ts';
import { DESCRIBED, describedEntry, describedService, writeMcpJson } from './described.ts';

describe('mesh migrate, to the mesh and back', () => {
  const cleanUps = collectCleanUps();
  let harness: FleetHarness;
  before(async () => {
    const consul = await startConsul();
    cleanUps.add(() => consul.close());
    harness = await startFleetHarness(cleanUps.add, {
      consulUrl: consul.url,
      services: [describedService('same', DESCRIBED)],
    });
  });
  after(() => cleanUps.run());

  const migrate = (config: string, ...more: string[]) =>
    meshWith({ env: { MESH_URL: harness.urls[0] ?? '' } }, 'migrate', 'same', '--config', config, ...more);

  /** Starts what the client's file says now, and asks it who it is. */
  async function greet(t: Parameters<typeof startMeshClient>[0], config: string) {
    const { command, args } = JSON.parse(readFileSync(config, 'utf8')).mcpServers.same;
    assert.equal(command, process.execPath);
    const client = startMeshClient(t, args.slice(1));
    const answer = await client.greet();
    const said = client.errors();
    assert.equal(await client.end(), 0);
    return { name: answer.result.serverInfo.name, said };
  }

  test('a parity run that finds a difference switches nothing, unless it is accepted', async t => {
    const config = writeMcpJson(folderFor(t), {
      same: describedEntry({ ...DESCRIBED, instructions: 'Other' }),
    });
    const before = readFileSync(config, 'utf8');
    const refused = await migrate(config, '--switch');
    assert.equal(refused.code, 1);
    assert.match(refused.err, /nothing is switched: --accept-differences/);
    assert.equal(readFileSync(config, 'utf8'), before);
    const accepted = await migrate(config, '--switch', '--accept-differences', '--json');
    assert.equal(accepted.code, 0, accepted.err);
    const { switched, differences } = JSON.parse(accepted.out);
    assert.deepEqual([switched.entry, differences.length], ['same', 1]);
    assert.deepEqual(JSON.parse(readFileSync(config, 'utf8')).mcpServers.same, {
      type: 'http',
      url: `${harness.urls[0]}/api/v1/mcp/same`,
    });
    const back = await migrate(config, '--rollback');
    assert.deepEqual([back.code, readFileSync(config, 'utf8')], [0, before]);
  });

  test('--stdio installs mesh connect, which works as it stands in the file', async t => {
    const config = writeMcpJson(folderFor(t), { same: describedEntry(DESCRIBED) });
    const { code, err } = await migrate(config, '--switch', '--stdio');
    assert.deepEqual([code, err.includes('restart the client')], [0, true], err);
    assert.equal((await greet(t, config)).name, 'described');
  });

  test('gradually: the share is changed while clients run, and 0 is the way back at once', async t => {
    const folder = folderFor(t);
    const old = { ...DESCRIBED, serverInfo: { ...DESCRIBED.serverInfo, name: 'old' } };
    const config = writeMcpJson(folder, { same: describedEntry(old) });
    const before = readFileSync(config, 'utf8');
    const done = await migrate(config, '--switch', '--accept-differences', '--percent', '100');
    assert.equal(done.code, 0, done.err);
    const mesh = await greet(t, config);
    assert.deepEqual(
      [mesh.name, /goes to the mesh: 100 of 100/.test(mesh.said)],
      ['described', true],
      mesh.said,
    );
    const zero = await migrate(config, '--percent', '0');
    assert.deepEqual([zero.code, zero.out], [0, `${config}: 0 of 100 new sessions of same go to the mesh\n`]);
    const away = await greet(t, config);
    assert.deepEqual(
      [away.name, /goes to the old server: 0 of 100/.test(away.said)],
      ['old', true],
      away.said,
    );
    assert.equal((await migrate(config, '--percent', '100')).code, 0);
    assert.equal((await greet(t, config)).name, 'described');
    assert.equal((await migrate(config, '--rollback')).code, 0);
    assert.equal(readFileSync(config, 'utf8'), before);
    assert.ok(!readdirSync(folder).some(name => name.includes('journal')));
  });

  test('the share of the service is set in the registry, its comments kept', async t => {
    const path = join(folderFor(t), 'registry.yaml');
    writeFileSync(
      path,
      '# Ours\nmcp_services:\n  - name: same # that one\n    command: x\n    env: { A: "${UNSET}" }\n',
    );
    const { code, out } = await meshWith({}, 'migrate', 'same', '--percent', '25', '--registry', path);
    assert.deepEqual([code, out], [0, `${path}: 25 of 100 new sessions of same go to the mesh\n`]);
    assert.match(
      readFileSync(path, 'utf8'),
      /^# Ours\nmcp_services:\n {2}- name: same # that one\n(?:.*\n)*? {4}traffic_percent: 25\n/,
    );
    const unknown = await meshWith({}, 'migrate', 'sane', '--percent', '25', '--registry', path);
    assert.match(unknown.err, /no service "sane"; did you mean "same"\?/);
  });

  test('wrong usage says what goes with what', async () => {
    const cases: [string[], RegExp][] = [
      [['--switch'], /--switch goes with --config/],
      [['--entry-only'], /--entry-only goes with --rollback/],
      [['--percent', '101'], /"101" is no share from 0 to 100/],
      [['--probe', 'x={'], /"x=\{" is not of the form/],
      [['--calls', '0'], /no whole number from 1/],
    ];
    for (const [args, message] of cases) {
      const { code, err } = await meshWith({}, 'migrate', 'same', ...args);
      assert.equal(code, 2, err);
      assert.match(err, message);
    }
  });
});

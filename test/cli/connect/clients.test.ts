import assert from 'node:assert/strict';
import { after, before, describe, type TestContext, test } from 'node:test';
import { StdioClientTransport as OfficialStdioTransport } from '@modelcontextprotocol/client/stdio';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { isAlive } from '../../e2e/mesh-process.ts';
import { callerOf, connectLegacyClient } from '../../e2e/third-party/legacy-client.ts';
import {
  connectOfficialClient,
  callerOf as officialCallerOf,
} from '../../e2e/third-party/official-client.ts';
import {
  checkTools,
  SERVICES,
  type ServiceName,
  type Services,
  SINGLE,
  startServices,
} from '../../e2e/third-party/services.ts';
import { checkElicitation, type User } from '../../e2e/third-party/user.ts';
import { MESH } from '../helpers.ts';

const MODES = [
  { mode: 'legacy', version: '2025-11-25' },
  { mode: 'auto', version: '2026-07-28' },
  { mode: { pin: '2026-07-28' }, version: '2026-07-28' },
] as const;

describe('mesh connect, for clients that others wrote', () => {
  let services: Services | undefined;
  before(async () => {
    services = await startServices();
  });
  after(() => services?.stop());

  function parameters(service: ServiceName | typeof SINGLE) {
    assert.ok(services, 'the mesh did not start');
    const env = { PATH: process.env.PATH ?? '', MESH_URL: services.origin };
    return {
      command: process.execPath,
      args: [MESH, 'connect', service],
      env,
      stderr: 'ignore' as const,
    };
  }

  /** When the test ends: ends the program as its host would. */
  function endWith(t: TestContext, transport: { pid: number | null; close(): Promise<void> }) {
    t.after(async () => {
      const { pid } = transport;
      await transport.close();
      assert.ok(pid && !isAlive(pid), 'mesh connect ends with its client');
    });
  }

  function legacy(t: TestContext, service: ServiceName, user?: User) {
    const transport = new StdioClientTransport(parameters(service));
    endWith(t, transport);
    return connectLegacyClient(t, transport, user);
  }

  function official(
    t: TestContext,
    service: ServiceName | typeof SINGLE,
    mode: (typeof MODES)[number]['mode'],
    user?: User,
  ) {
    const transport = new OfficialStdioTransport(parameters(service));
    endWith(t, transport);
    return connectOfficialClient(t, transport, mode, user);
  }

  for (const service of SERVICES) {
    test(`@modelcontextprotocol/sdk lists and calls the tools of ${service}`, async t => {
      await checkTools(service, callerOf(await legacy(t, service)));
    });
    for (const { mode, version } of MODES) {
      test(`@modelcontextprotocol/client, ${JSON.stringify(mode)}, does so, too, of ${service}`, async t => {
        const client = await official(t, service, mode);
        assert.equal(client.getNegotiatedProtocolVersion(), version);
        await checkTools(service, officialCallerOf(client));
      });
    }
  }

  test('what a tool asks its user gets there and back, in both eras', async t => {
    await checkElicitation(async user => callerOf(await legacy(t, 'modern', user)));
    for (const { mode } of MODES)
      await checkElicitation(async user => officialCallerOf(await official(t, 'modern', mode, user)));
  });

  test('progress comes with its call, in both eras', async t => {
    // The last step comes right before the answer; the SDKs drop it when they read both in one turn.
    const expected = [0, 50].map(progress => ({ progress, total: 100 }));
    const seen: object[] = [];
    const onprogress = (progress: object) => seen.push(progress);
    const name = 'test_tool_with_progress';
    await (await legacy(t, 'legacy')).callTool({ name }, undefined, { onprogress });
    assert.deepEqual(seen.splice(0).slice(0, 2), expected);
    const client = await official(t, 'legacy', { pin: '2026-07-28' });
    await client.callTool({ name }, { onprogress });
    assert.deepEqual(seen.slice(0, 2), expected);
  });

  test('a subscription hears of changes of the tools', async t => {
    const client = await official(t, SINGLE, { pin: '2026-07-28' });
    const { promise: changed, resolve } = Promise.withResolvers<void>();
    client.setNotificationHandler('notifications/tools/list_changed', () => resolve());
    const subscription = await client.listen({ toolsListChanged: true });
    await client.callTool({ name: 'test_trigger_tool_change' });
    await changed;
    await subscription.close();
    assert.equal(await subscription.closed, 'local');
  });
});

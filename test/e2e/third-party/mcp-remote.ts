import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { StdioClientTransport as OfficialStdioTransport } from '@modelcontextprotocol/client/stdio';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { isAlive, ROOT } from '../mesh-process.ts';
import { callerOf, connectLegacyClient } from './legacy-client.ts';
import { connectOfficialClient, callerOf as officialCallerOf } from './official-client.ts';
import { createSandbox, foreignHosts, type Sandbox, versionsOf } from './sandbox.ts';
import { checkTools, SERVICES, type Services } from './services.ts';
import { checkElicitation, type User } from './user.ts';

const PROGRAM = join(ROOT, 'node_modules/.bin/mcp-remote');

const MODES = [
  { desc: 'as it is', args: [], versions: ['', '2025-11-25'], mirrors: true },
  // Its translation sends no Mcp-Param-* headers (0.15.1).
  { desc: 'with --protocol auto', args: ['--protocol', 'auto'], versions: ['2026-07-28'], mirrors: false },
];

/** `mcp-remote`: how hosts that can only start programs reach servers over HTTP. */
export function mcpRemoteCases(services: () => Services): void {
  for (const { desc, args, versions, mirrors } of MODES) {
    describe(`mcp-remote, ${desc}`, () => {
      for (const service of SERVICES) {
        test(`lists and calls the tools of ${service}`, async t => {
          const url = services().url(service);
          const { client, sandbox } = await connect(t, [url, ...args]);
          await checkTools(service, callerOf(client), { mirrors });
          assert.deepEqual(versionsOf(sandbox.record(), url), versions);
        });
      }

      test('hands on what the tools of modern ask', t =>
        checkElicitation(async user => {
          const { client } = await connect(t, [services().url('modern'), ...args], user);
          return callerOf(client);
        }));
    });
  }

  test('mcp-remote hands on the messages of a client of the new era', async t => {
    const url = services().url('modern');
    const { sandbox, parameters } = program([url]);
    const transport = new OfficialStdioTransport(parameters);
    endWith(t, transport, sandbox);
    const client = await connectOfficialClient(t, transport, { pin: '2026-07-28' });
    await checkTools('modern', officialCallerOf(client), { mirrors: false });
    // It also shakes hands in the old era, on a connection of its own that it only tries the server with.
    const calls = sandbox
      .record()
      .filter(entry => entry.kind === 'request' && entry.headers['mcp-method'] === 'tools/call');
    assert.deepEqual(versionsOf(calls, url), ['2026-07-28']);
  });
}

/** The program behind the SDK's client, as a desktop host runs it. */
async function connect(t: TestContext, args: string[], user?: User) {
  const { sandbox, parameters } = program(args);
  const transport = new StdioClientTransport(parameters);
  endWith(t, transport, sandbox);
  return { client: await connectLegacyClient(t, transport, user), sandbox };
}

function program(args: string[]) {
  const sandbox = createSandbox();
  const argv = [PROGRAM, ...args, '--allow-http'];
  return {
    sandbox,
    parameters: { command: process.execPath, args: argv, env: sandbox.env, stderr: 'ignore' as const },
  };
}

/** When the test ends: ends the program as its host would, and looks at what it did. */
function endWith(
  t: TestContext,
  transport: { pid: number | null; close(): Promise<void> },
  sandbox: Sandbox,
) {
  t.after(async () => {
    try {
      const { pid } = transport;
      await transport.close();
      assert.ok(pid && !isAlive(pid), 'mcp-remote ends with its client');
      assert.deepEqual(foreignHosts(sandbox.record()), []);
    } finally {
      sandbox.remove();
    }
  });
}

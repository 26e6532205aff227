import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { type Caller, checkTools, SERVICES, type Services } from './services.ts';
import { checkElicitation, type User } from './user.ts';

/** The SDK's transports are not assignable to its own interface under exactOptionalPropertyTypes. */
type Transport = Parameters<Client['connect']>[0];

/** `@modelcontextprotocol/sdk`, which knows only the old era. */
export function legacyClientCases(services: () => Services): void {
  describe('@modelcontextprotocol/sdk', () => {
    for (const service of SERVICES) {
      test(`lists and calls the tools of ${service}`, async t => {
        const client = await connect(t, services().url(service));
        await checkTools(service, callerOf(client));
      });
    }

    for (const service of ['legacy', 'modern'] as const) {
      test(`hears of the progress of a call of ${service}`, async t => {
        const client = await connect(t, services().url(service));
        const seen: object[] = [];
        const onprogress = (progress: object) => seen.push(progress);
        await client.callTool({ name: 'test_tool_with_progress' }, undefined, { onprogress });
        assert.deepEqual(
          seen,
          [0, 50, 100].map(progress => ({ progress, total: 100 })),
        );
      });
    }

    test('answers what the tools of modern ask', t =>
      checkElicitation(async user => callerOf(await connect(t, services().url('modern'), user))));
  });
}

function connect(t: TestContext, url: string, user?: User): Promise<Client> {
  return connectLegacyClient(t, new StreamableHTTPClientTransport(new URL(url)) as Transport, user);
}

/** Its client over any transport; closed when the test ends. */
export async function connectLegacyClient(
  t: TestContext,
  transport: Transport,
  user?: User,
): Promise<Client> {
  const capabilities = user ? { elicitation: {} } : {};
  const client = new Client({ name: 'mcp-mesh-test', version: '1' }, { capabilities });
  if (user) client.setRequestHandler(ElicitRequestSchema, ({ params }) => user.answer(params));
  await client.connect(transport);
  t.after(() => client.close());
  return client;
}

/** What the checks need of it. */
export function callerOf(client: Client): Caller {
  return {
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    callTool: async (name, args) => (await client.callTool({ name, arguments: args })) as object,
  };
}

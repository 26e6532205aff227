import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { createMCPClient, ElicitationRequestSchema } from '@ai-sdk/mcp';
import { type Caller, checkTools, SERVICES, type Services } from './services.ts';
import { checkElicitation, type User } from './user.ts';

const MODES = [
  { desc: 'as it is', protocolVersionDiscovery: true, version: '2026-07-28' },
  { desc: 'without discovery', protocolVersionDiscovery: false, version: '2025-11-25' },
];

/** `@ai-sdk/mcp`: an implementation of its own, not built on the SDKs. */
export function aiSdkCases(services: () => Services): void {
  for (const { desc, protocolVersionDiscovery, version } of MODES) {
    describe(`@ai-sdk/mcp, ${desc}`, () => {
      for (const service of SERVICES) {
        test(`lists and executes the tools of ${service}`, async t => {
          const client = await connect(t, services().url(service), protocolVersionDiscovery);
          assert.equal(client.initializeResult.protocolVersion, version);
          await checkTools(service, await callerOf(client));
        });
      }

      test('answers what the tools of modern ask', t =>
        checkElicitation(async user =>
          callerOf(await connect(t, services().url('modern'), protocolVersionDiscovery, user)),
        ));
    });
  }
}

type Client = Awaited<ReturnType<typeof connect>>;

async function connect(t: TestContext, url: string, protocolVersionDiscovery: boolean, user?: User) {
  const client = await createMCPClient({
    transport: { type: 'http', url },
    protocolVersionDiscovery,
    ...(user ? { capabilities: { elicitation: {} } } : {}),
  });
  t.after(() => client.close());
  if (user) client.onElicitationRequest(ElicitationRequestSchema, ({ params }) => user.answer(params));
  return client;
}

/** The tools as an agent gets them: callable functions. */
async function callerOf(client: Client): Promise<Caller> {
  const tools = await client.tools();
  return {
    listTools: async () => Object.keys(tools),
    async callTool(name, args) {
      const tool = tools[name];
      assert.ok(tool, `no tool ${name}`);
      return (await tool.execute(args, { toolCallId: 'call-1', messages: [], context: {} })) as object;
    },
  };
}
